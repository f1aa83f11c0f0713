"""Which settings serve most calls on this machine: each that is tried of each peer, for a short while."""

from bench.online import answers, serving
from bench.online.comparison import PEERS
from bench.online.load import press, write_bodies
from bench.online.rounds import Plan, peer_named


def tune(plan: Plan) -> int:
    """Print calls a second of every setting at every concurrency of the plan."""
    names = {peer.name for peer in PEERS}
    for server in (name for name in plan.servers if name in names):
        peer = peer_named(server)
        for subject in plan.subjects:
            for settings in peer.tried:
                with serving.serving(peer, subject, plan.cache, settings) as found:
                    answers.ask_all(found.target, subject.inputs)
                    bodies = write_bodies(plan.cache / "bodies.jsonl", [found.target.body(value) for value in subject.inputs])
                    press(found.target, bodies, concurrency=16, seconds=plan.warm)
                    windows = [press(found.target, bodies, concurrency=c, seconds=plan.seconds, cpu=found.cpu) for c in plan.concurrency]
                rates = ", ".join(f"{w.concurrency}: {w.per_second:.0f}/s {w.cpu_ms:.2f} CPU-ms {w.failed} failed" for w in windows)
                print(f"{server} {subject.name} {settings}: {rates}", flush=True)
    return 0
