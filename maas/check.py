"""The main job through the public API, as a customer would run it, with every count compared. Used by `bin/up --check`."""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from maas.homes import read_demo
from maas.product import ROOT
from maas.rest import Client, Refused
from maas.terminal import Step, say, step, table

LINES = 300
PATIENCE_SECONDS = 600
OPEN = {"validating", "in_progress", "finalizing", "cancelling"}
SEED = 7
START = (datetime.now(UTC) - timedelta(days=30)).date().isoformat()


@dataclass
class Tally:
    """What the answers said that was charged, by model."""

    requests: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)

    def add(self, model: str, units: int, requests: int = 1) -> None:
        self.requests[model] += requests
        self.units[model] += units


def main() -> int:
    """0 when everything was as it has to be; 1 with the list of what was not."""
    parser = argparse.ArgumentParser(prog="python -m maas.check", description="Run the main job and compare every count.")
    parser.add_argument("--home", type=Path, required=True, help="the data folder, for the demo's key")
    parser.add_argument("--url", required=True)
    parser.add_argument("--kill-worker", action="store_true", help="kill the batch worker in the middle of the batch")
    options = parser.parse_args()
    begun = time.monotonic()
    try:
        wrong = check(Client(options.url, read_demo(options.home)["MAAS_API_KEY"]), options.home, kill_worker=options.kill_worker)
    except Refused as error:
        wrong = [str(error)]
    for sentence in wrong:
        say(f"  ✗ {sentence}")
    verdict = f"the check FAILED: {len(wrong)} wrong" if wrong else "the check passed"
    say(f"\n{verdict} after {time.monotonic() - begun:.1f} s.")
    return 1 if wrong else 0


def check(client: Client, home: Path, *, kill_worker: bool) -> list[str]:
    """Run the whole journey; a sentence for each thing that was off."""
    samples = read_samples(client)
    if not samples:
        return ["No model of GET /v1/models has a sample to call it with."]
    before, tally = read_usage(client), Tally()
    call_each_model(client, samples, tally)
    lines = mix_lines(samples)
    batch = run_batch(client, lines, _killer(home) if kill_worker else None)
    wrong = judge_batch(client, batch, lines, tally)
    return wrong + judge_usage(before, read_usage(client), tally)


# ---------- predictions ----------


def read_samples(client: Client) -> dict[str, list[Any]]:
    """The inputs that were shipped with each model that can be called."""
    folder = Path(os.environ.get("MAAS_MODELS", ROOT / "models"))
    found = {}
    for model in client.get("/v1/models")["data"]:
        path = folder / model["id"] / "samples.jsonl"
        if path.exists():
            found[model["id"]] = [json.loads(line)["inputs"] for line in path.read_text().splitlines() if line.strip()]
    return found


def call_each_model(client: Client, samples: dict[str, list[Any]], tally: Tally) -> None:
    """One call per model; what it answered is shown."""
    for name, inputs in samples.items():
        with step(f"POST /v1/predictions  {name}"):
            answer = client.post("/v1/predictions", {"model": name, "inputs": inputs[0]})
        tally.add(name, answer["usage"]["units"])
        say(f"      {json.dumps(answer['outputs'], ensure_ascii=False)[:110]}")


# ---------- the batch ----------


def mix_lines(samples: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """300 real lines over all models, shuffled; a model with few samples repeats them."""
    names = sorted(samples)
    chosen = [(names[index % len(names)], index // len(names)) for index in range(LINES)]
    random.Random(SEED).shuffle(chosen)  # noqa: S311  # the same order every time
    bodies = [{"model": name, "inputs": samples[name][index % len(samples[name])]} for name, index in chosen]
    call = {"method": "POST", "url": "/v1/predictions"}
    return [{"custom_id": f"line-{number:03}", **call, "body": body} for number, body in enumerate(bodies)]


def run_batch(client: Client, lines: list[dict[str, Any]], kill: Callable[[], str] | None) -> dict[str, Any]:
    """Upload, create, wait. The batch in its last state."""
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with step(f"POST /v1/files  {len(lines)} lines, {len(body) / 2**20:.1f} MiB"):
        file = client.upload("check.jsonl", body, purpose="batch")
    terms = {"endpoint": "/v1/predictions", "completion_window": "24h", "metadata": {"made_by": "bin/up --check"}}
    batch = client.post("/v1/batches", {"input_file_id": file["id"], **terms})
    with step(f"Batch {batch['id']}") as it:
        return wait_for(client, batch, it, kill)


def wait_for(client: Client, batch: dict[str, Any], it: Step, kill: Callable[[], str] | None) -> dict[str, Any]:
    """Ask until the batch is over, with a bar. `kill` strikes once, when the work has begun."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while batch["status"] in OPEN and time.monotonic() < limit:
        if kill and batch["status"] == "in_progress":
            time.sleep(0.5)  # into the work on a slice
            say(f"      {kill()}")
            kill = None
        it.tick(bar(batch["request_counts"], it.seconds))
        time.sleep(0.1 if kill else 0.25)
        batch = client.get(f"/v1/batches/{batch['id']}")
    batch["missed"] = kill is not None  # it was over before its worker could be killed
    return batch


def bar(counts: dict[str, int], seconds: float) -> str:
    """Lines done, how fast, and how long it will go on."""
    total, done = counts["total"] or LINES, counts["completed"] + counts["failed"]
    filled = 24 * done // total
    rate = done / max(seconds, 0.1)
    left = f"{(total - done) / rate:.0f} s left" if done else ""
    return f"{'█' * filled}{'░' * (24 - filled)} {done}/{total} lines  {rate:.0f}/s  {left}"


def _killer(home: Path) -> Callable[[], str]:
    """A function that kills the batch worker as kill -9 would."""

    def kill() -> str:
        pid = worker_of(home)
        os.kill(pid, signal.SIGKILL)
        return f"kill -9 {pid}, the batch worker"

    return kill


def worker_of(home: Path) -> int:
    """The process that runs as batch worker now."""
    return int((home / "run" / "batch.pid").read_text().split()[0])


# ---------- verdicts ----------


def judge_batch(client: Client, batch: dict[str, Any], lines: list[dict[str, Any]], tally: Tally) -> list[str]:
    """Every line answered once, in order, with success; adds what the answers charge to the tally."""
    if batch["status"] != "completed":
        return [f"The batch ended as {batch['status']}: {json.dumps(batch.get('errors'))}"]
    answers, failures = (_download(client, batch.get(name)) for name in ("output_file_id", "error_file_id"))
    model_of = {line["custom_id"]: line["body"]["model"] for line in lines}
    for answer in answers:
        tally.add(model_of.get(answer["custom_id"], "?"), answer["response"]["body"]["usage"]["units"])
    wrong = [f"Line {line['custom_id']} failed: {json.dumps(line)[:300]}" for line in failures]
    if batch["missed"]:
        wrong.append("The batch was over before its worker could be killed.")
    if [answer["custom_id"] for answer in answers] != list(model_of):
        wrong.append(_describe_order([answer["custom_id"] for answer in answers], list(model_of)))
    expected = {"total": len(lines), "completed": len(lines), "failed": 0}
    if batch["request_counts"] != expected:
        wrong.append(f"request_counts says {batch['request_counts']}, not {expected}.")
    return wrong


def _download(client: Client, file_id: str | None) -> list[dict[str, Any]]:
    if not file_id:
        return []
    return [json.loads(line) for line in client.call("GET", f"/v1/files/{file_id}/content").splitlines()]


def _describe_order(found: list[str], wanted: list[str]) -> str:
    twice = [name for name, count in Counter(found).items() if count > 1]
    missing = [name for name in wanted if name not in set(found)]
    odd = f"{len(missing)} missing {missing[:5]}, {len(twice)} twice {twice[:5]}"
    return f"The output file holds {len(found)} of {len(wanted)} lines: {odd}, or the order differs."


def read_usage(client: Client) -> dict[str, dict[str, Any]]:
    """The ledger's sums by model since a fixed day, so that the end of a month changes nothing."""
    return {row["model"]: row for row in client.get(f"/v1/usage?group_by=model&start={START}")["data"]}


def judge_usage(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], tally: Tally) -> list[str]:
    """The ledger has to have grown by exactly what the answers said."""
    rows: list[list[object]] = []
    wrong = []
    for name in sorted(set(after) | set(tally.requests)):
        grown = [after.get(name, {}).get(column, 0) - before.get(name, {}).get(column, 0) for column in ("requests", "units")]
        answered = [tally.requests[name], tally.units[name]]
        rows.append([name, *grown, *answered, after.get(name, {}).get("unit", "")])
        if grown != answered:
            wrong.append(f"Usage of {name} grew by {grown} requests and units; {answered} were answered.")
    say("\n" + table(["model", "requests charged", "units charged", "requests answered", "units answered", "unit"], rows) + "\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
