"""Guards of serving: what is loaded is what was stored, one failure is nobody else's, nothing changes or is cut in silence."""

from tests.guarding import Guard

VERSIONS, RUNTIME, ROUNDING = "tests/test_versions.py -k ", "tests/test_runtime.py -k ", "tests/test_rounding.py"

SERVING = (
    Guard("serving: files are what was stored", "workers/fetching.py", "if found != digest:", "if False:", VERSIONS + "changed_in_storage"),
    Guard("serving: ready never waits", "workers/versions.py", "return found\n\n    def sizes", "return promise.result()\n\n    def sizes",
          VERSIONS + "says_none"),
    Guard("serving: an export holds up only itself", "workers/versions.py", "if not fetching.is_exported(folder):", "if True:",
          VERSIONS + "hold_up"),
    Guard("serving: a pause after a failure", "workers/versions.py", "if failed and time.monotonic() < failed.until:", "if False:",
          VERSIONS + "stays_broken"),
    Guard("serving: a store that is away passes", "workers/versions.py", "else AWAY", "else PAUSE", VERSIONS + "is_away"),
    Guard("serving: damaged caches are made anew", "workers/versions.py", "fetching.discard(version)\n", "pass\n", VERSIONS + "made_anew"),
    Guard("serving: memory is bounded", "workers/versions.py", "while len(self.loaded) > 1 and", "while False and",
          VERSIONS + "longest_ago"),
    Guard("serving: one too large is served alone", "workers/versions.py", "while len(self.loaded) > 1 and", "while",
          VERSIONS + "longest_ago"),
    Guard("serving: memory is measured", "workers/versions.py", "max(grown, predictor.least_bytes)", "predictor.least_bytes",
          VERSIONS + "is_measured"),
    Guard("serving: warm before ready", "workers/versions.py", "predictor.warm_up(settings.MAAS_BATCH_LIMIT)", "pass",
          VERSIONS + "full_batch"),
    Guard("serving: a device never falls back in silence", "workers/runtime/graphs.py", "if kind in PROVIDERS and", "if False and",
          RUNTIME + "never_the_cpu"),
    Guard("serving: halves when memory is short", "workers/predict.py", "if out_of_memory(together) else 1", "if False else 1",
          RUNTIME + "halve"),
    Guard("serving: one input fails alone", "workers/predict.py", "if len(encoded) == 1:", "if True:", RUNTIME + "each_alone"),
    Guard("serving: answers are whole in a window", "workers/recipes/bert_qa.py", "overlap = max(stride, longest)", "overlap = stride",
          RUNTIME + "lengthened"),
    Guard("serving: long questions are refused", "workers/recipes/bert_qa.py", 'if len(question) > self.config["question"]:', "if False:",
          RUNTIME + "past_its_limit"),
    Guard("serving: a translation cut off says so", "workers/recipes/transformer_translation.py", "return output if is_whole else",
          "return output if True else", RUNTIME + "says_so"),
    Guard("serving: a row is rounded by itself", "workers/runtime/rounding.py", 'f"{x}_largest", keepdims=0)',
          'f"{x}_mine", keepdims=0)\n        self._node("ReduceMax", [f"{x}_mine"], f"{x}_most", keepdims=1)\n'
          '        self._node("Max", [f"{x}_mine", f"{x}_most"], f"{x}_largest")', ROUNDING),
)  # fmt: skip
