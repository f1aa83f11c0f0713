"""The same texts as a batch of the running product: uploaded, checked, claimed in slices, charged, assembled, downloaded."""

import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bench.online.cpu import private_bytes, tree
from bench.online.load import LoadError
from bench.online.stack import Stack
from bench.online.subjects import TEXTS

POLL_SECONDS = 0.25
ENDPOINT = "/v1/embeddings"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Done:
    """A batch that was completed: texts a second from its creation to its end and from the end of the check, private memory of
    the worker before and at most during it (MiB), and the first vectors."""

    per_second: float
    running_per_second: float
    idle_mib: float
    peak_mib: float
    vectors: list[list[float]]


def run_batch(stack: Stack, texts: list[str]) -> Done:
    """Embed texts as one batch. LoadError when it does not complete, or answers a line twice, not at all or out of order."""
    file = _upload(stack, texts)
    idle = worker_bytes(stack)
    begun = time.perf_counter()
    batch = _call(stack, "POST", "/v1/batches", {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"})
    running, peak = begun, idle
    while batch["status"] in {"validating", "in_progress", "finalizing"}:
        time.sleep(POLL_SECONDS)
        running = time.perf_counter() if batch["status"] == "validating" else running
        peak = max(peak, worker_bytes(stack))
        batch = _call(stack, "GET", f"/v1/batches/{batch['id']}")
    ended = time.perf_counter()
    if batch["status"] != "completed" or batch["request_counts"] != {"total": len(texts), "completed": len(texts), "failed": 0}:
        raise LoadError(f"The batch ended as {batch['status']}: {batch['request_counts']} {batch['errors']}")
    vectors = _read(stack, batch["output_file_id"], len(texts))
    return Done(len(texts) / (ended - begun), len(texts) / (ended - running), idle / MEBIBYTE, peak / MEBIBYTE, vectors)


def worker_bytes(stack: Stack) -> int:
    """Private memory of the batch worker."""
    pid = int((stack.home / "run" / "batch.pid").read_text().split()[0])
    return sum(map(private_bytes, tree(pid)))


def _upload(stack: Stack, texts: list[str]) -> str:
    rows = (
        {"custom_id": f"text-{number}", "method": "POST", "url": ENDPOINT, "body": {"model": TEXTS, "input": text}}
        for number, text in enumerate(texts)
    )
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    edge = uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="texts.jsonl"\r\n\r\n'.encode(), body,
        f"\r\n--{edge}--\r\n".encode(),
    ]  # fmt: skip
    told = _send(stack, "POST", "/v1/files", b"".join(parts), f"multipart/form-data; boundary={edge}")
    return str(json.loads(told)["id"])


def _read(stack: Stack, file: str, count: int) -> list[list[float]]:
    """The first vectors, after a look at every line."""
    lines = _send(stack, "GET", f"/v1/files/{file}/content", None, "").splitlines()
    if [json.loads(line)["custom_id"] for line in lines] != [f"text-{number}" for number in range(count)]:
        raise LoadError("The output does not hold each line once, in the order of the input.")
    return [json.loads(line)["response"]["body"]["data"][0]["embedding"] for line in lines[:32]]


def _call(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    return json.loads(_send(stack, method, path, json.dumps(body).encode() if body is not None else None, "application/json"))


def _send(stack: Stack, method: str, path: str, body: bytes | None, kind: str) -> bytes:
    headers = {"Authorization": f"Bearer {stack.key}", **({"Content-Type": kind} if kind else {})}
    request = urllib.request.Request(stack.url + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        found: bytes = answer.read()
    return found
