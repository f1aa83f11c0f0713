"""docs/performance.md and its plot, from the figures of a run."""

from pathlib import Path
from typing import Any

from bench.online import plot, summary

INTRODUCTION = """# Performance of online inference

How many calls a second the product answers with everything on, beside servers that do nothing but serve the model. The command below
wrote this page; run it on your machine for figures of yours.

```sh
python -m bench.online --write-docs
```

![Calls a second by server](performance.svg)
"""

METHOD = """## What was measured

One ONNX file and one tokenizer a model, the same for all: `minilm-squad` (question answering) and `minilm-embed` (sentence vectors) of the
catalogue, and a CNN of random weights for pictures of 32 x 32, whose own work is next to nothing, so that the server's shows. Inputs are
the models' own samples, real texts and pictures of their natural lengths, which take turns in a seeded order.

* **maas** is the whole product as `bin/up` starts it: web server, online server, batch and light worker, beat, embedded PostgreSQL and
  Redis. Each call presents a key and is counted against four limits a minute of a paid plan, reserved from the month's allowance,
  batched, run, settled and entered into the ledger. After each model the ledger held exactly the calls that were answered; else the
  run fails.
* **maas-bare** is the same web server, queue and online server without authentication, limits, reservation and settlement. What these
  four add to a call is told at a fixed number of calls a second: on a machine that is full, latency says only how fast it is emptied.
* **fastapi** is FastAPI and uvicorn with a synchronous endpoint, one run a call, no batching. **litserve**, **bentoml** and **mlserver**
  batch up to 32 calls. All run ONNX Runtime without authentication, pad a batch to its longest member, and are in environments of
  their own with the same ONNX Runtime and tokenizers. BentoML's batched methods take lists, so its calls hold a list of one; MLServer is
  called by its V2 protocol, since its batching works on that alone. Their settings were chosen after short tries
  here; `--tune` tries all of them.
* **raw** is ONNX Runtime in a process of its own on inputs that are tokenised already: alone, and in batches of 32, each padded to
  its longest in the order in which they came, over all cores in the better of two ways.

All answers of all servers were compared with those of the raw model before they were loaded: texts and places equal, numbers to 1e-4.
wrk keeps 1, 16 or 64 connections busy; the latencies that it makes up to correct those that it measured are taken out again.
One server runs at a time; their order moves on each round; figures are medians over the rounds.
CPU-ms is the processor time of a server's whole tree of processes, for maas with PostgreSQL and Redis, divided by the answered calls.
"""

CLAIMS = """## What is claimed, and what is not

The figures hold for this kind of machine, with wrk on the same cores: it takes its share from every server alike. Ratios carry over to
other machines better than calls a second do. Differences smaller than the noise stated with each model mean nothing. Nothing is said
about other models, larger inputs, networks, or GPUs (`python -m bench.gpu`), nor about the peers in settings that were not tried.
"""


def write(everything: dict[str, Any], folder: Path) -> int:
    """Both files. Always 0, the command's exit code."""
    parts = [
        INTRODUCTION,
        _machine(everything["facts"]),
        METHOD,
        "## Figures\n",
        summary.table(everything["summary"]) + "\n",
        _targets(everything),
        CLAIMS,
    ]
    (folder / "performance.md").write_text("\n".join(parts))
    (folder / "performance.svg").write_text(plot.draw(everything["summary"]))
    print(f"Written: {folder / 'performance.md'} and performance.svg.")
    return 0


def _machine(facts: dict[str, Any]) -> str:
    machine, options = facts["machine"], facts["options"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    lines = [
        f"Measured on {facts['date']}: {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {versions}. {options['rounds']} rounds, windows of {options['seconds']:g} s, "
        + ", ".join(f"{count} inputs of {name}" for name, count in options["inputs"].items()) + ".\n",
        "| server | versions | settings |", "| --- | --- | --- |",
        f"| maas | as above | {_pairs(facts['maas']) or 'as shipped'} |",
    ]  # fmt: skip
    lines += [f"| {name} | {_pairs(peer['versions'])} | {_settings(peer['settings'])} |" for name, peer in facts["peers"].items()]
    return "\n".join(lines) + "\n"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _settings(chosen: dict[str, dict[str, Any]]) -> str:
    return "; ".join(f"{task}: {_pairs(settings)}" for task, settings in chosen.items())


def _targets(everything: dict[str, Any]) -> str:
    lines = ["## Against what was to be reached\n", "| what | found | wanted | |", "| --- | ---: | --- | --- |"]
    lines += [f"| {what} | {value:.2f} | {wanted} | {'reached' if ok else 'missed'} |" for what, value, wanted, ok in everything["targets"]]
    return "\n".join(lines) + "\n"
