"""From every figure of every round to medians, ratios and the noise of the machine."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from bench.online.rounds import BARE, MAAS, PACE, PACED, Figures

COLUMNS = ("per_second", "p50", "p95", "p99", "cpu_ms")
RAW_COLUMNS = ("one_thread_ms", "all_threads_ms", "per_second", "sorted_per_second", "alone_cpu_ms", "cpu_ms", "sorted_cpu_ms")


def summarise(figures: Figures) -> dict[str, Any]:
    """By model: `raw` with its medians, `noise` with the spread of the calibrations, and `servers` by name and concurrency."""
    return {model: _model(figures, model) for model in figures.raw}


def _model(figures: Figures, model: str) -> dict[str, Any]:
    raw = {name: _median(row[name] for row in figures.raw[model]) for name in RAW_COLUMNS}
    raw["best"] = statistics.mode(row["best"] for row in figures.raw[model])
    raw["alone_ms"] = min(raw["one_thread_ms"], raw["all_threads_ms"])
    servers = {name: _server(windows) for name, windows in figures.windows.get(model, {}).items()}
    peers = [name for name in servers if name not in {MAAS, BARE}]
    for rows in servers.values():
        for concurrency, row in rows.items():
            row["of_raw"] = row["per_second"] / raw["per_second"]
            row["of_sorted_raw"] = row["per_second"] / raw["sorted_per_second"]
            best = max((servers[name][concurrency]["per_second"] for name in peers if concurrency in servers[name]), default=0.0)
            row["of_best_peer"] = row["per_second"] / best if best else None
    noise = {name: _spread(row[name] for row in figures.raw[model]) for name in ("one_thread_ms", "per_second")}
    paced = {name: {at: _median(row[at] for row in rows) for at in COLUMNS} for name, rows in figures.paced.get(model, {}).items()}
    return {"raw": raw, "noise": noise, "servers": servers, "paced": paced}


def _server(windows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Medians over the rounds by concurrency, with the lowest and highest throughput."""
    found: dict[int, dict[str, Any]] = {}
    for concurrency in sorted({window["concurrency"] for window in windows}):
        rows = [window for window in windows if window["concurrency"] == concurrency]
        found[concurrency] = {name: _median(row[name] for row in rows) for name in COLUMNS}
        found[concurrency] |= {"lowest": min(row["per_second"] for row in rows), "highest": max(row["per_second"] for row in rows)}
    return found


def _median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def _spread(values: Iterable[float]) -> float:
    """(largest - smallest) / median."""
    found = list(values)
    return (max(found) - min(found)) / _median(found)


# ---------- the table ----------
def table(summary: dict[str, Any]) -> str:
    """Markdown: a table for each model, its raw figures above it."""
    return "\n\n".join(_section(model, facts) for model, facts in summary.items())


def _section(model: str, facts: dict[str, Any]) -> str:
    raw, noise = facts["raw"], facts["noise"]
    head = (
        f"### {model}\n\nRaw ONNX Runtime: one input {raw['one_thread_ms']:.2f} ms with one thread and {raw['all_threads_ms']:.2f} ms with "
        f"all ({raw['alone_cpu_ms']:.2f} CPU-ms); batches of 32 as they arrive {raw['per_second']:.1f}/s ({raw['cpu_ms']:.2f} CPU-ms an "
        f"input; {raw['best']}), with similar lengths together {raw['sorted_per_second']:.1f}/s ({raw['sorted_cpu_ms']:.2f} CPU-ms). "
        f"Spread of the calibrations, largest less smallest over the median: {noise['one_thread_ms']:.0%} of a single run, "
        f"{noise['per_second']:.0%} of the batches.\n"
    )
    columns = ["server", "concurrency", "calls/s", "lowest..highest", "p50 ms", "p95 ms", "p99 ms", "CPU-ms/call", "of raw", "of best peer"]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [_line(name, at, row) for name, rows in facts["servers"].items() for at, row in rows.items()]
    return head + "\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + _paced(facts["paced"])


def _paced(paced: dict[str, Any]) -> str:
    """A sentence about the windows with a fixed number of calls a second."""
    told = [f"{name} p50 {row['p50']:.1f} ms, p95 {row['p95']:.1f} ms, p99 {row['p99']:.1f} ms" for name, row in paced.items()]
    return f"\n\nAt {PACE:.0f} calls a second over {PACED} connections: {'; '.join(told)}." if told else ""


def _line(name: str, concurrency: int, row: dict[str, Any]) -> list[str]:
    of_best = f"{row['of_best_peer']:.2f}" if row["of_best_peer"] else ""
    middle, low, high = (f"{row[at]:.1f}" for at in ("per_second", "lowest", "highest"))
    times = [f"{row[at]:.1f}" for at in ("p50", "p95", "p99")]
    return [name, str(concurrency), middle, f"{low}..{high}", *times, f"{row['cpu_ms']:.2f}", f"{row['of_raw']:.2f}", of_best]


# ---------- what was to be reached ----------
def targets(summary: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """(what, found, wanted, reached) of each figure that the design asks for, as far as it was measured."""
    found: list[tuple[str, float, str, bool]] = []
    for model, facts in summary.items():
        rows = facts["servers"].get(MAAS, {})
        found += _tiny(model, facts, rows) if model.startswith("tiny") else _text(model, facts, rows)
    return found


def _text(model: str, facts: dict[str, Any], rows: dict[int, Any]) -> list[tuple[str, float, str, bool]]:
    found = []
    for at in (16, 64):
        if at in rows:
            found.append((f"{model} at {at}: of raw batch 32", rows[at]["of_raw"], "at least 0.85", rows[at]["of_raw"] >= 0.85))
        if at in rows and rows[at]["of_best_peer"]:
            found.append((f"{model} at {at}: of the best peer", rows[at]["of_best_peer"], "at least 1.1", rows[at]["of_best_peer"] >= 1.1))
    return found + _added_to_raw(model, facts, rows)


def _added_to_raw(model: str, facts: dict[str, Any], rows: dict[int, Any]) -> list[tuple[str, float, str, bool]]:
    if 1 not in rows:
        return []
    more = rows[1]["p50"] - facts["raw"]["alone_ms"]
    return [(f"{model} at 1: p50 above raw, ms", more, "at most 3", more <= 3)]


def _tiny(model: str, facts: dict[str, Any], rows: dict[int, Any]) -> list[tuple[str, float, str, bool]]:
    servers, found = facts["servers"], _added_to_raw(model, facts, rows)
    rivals = [servers[name][64]["per_second"] for name in ("litserve", "mlserver") if 64 in servers.get(name, {})]
    if 64 in rows and rivals:
        share = rows[64]["per_second"] / max(rivals)
        found.append((f"{model} at 64: of the better of LitServe and MLServer", share, "at least 0.9", share >= 0.9))
    one, paced = {name: servers.get(name, {}).get(1) for name in (MAAS, BARE)}, facts["paced"]
    return found + _added(f"{model} at 1", one) + _added(f"{model} at {PACE:.0f} calls/s over {PACED}", paced)


def _added(where: str, rows: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    """What the full stack takes longer than the bare one."""
    if not rows.get(MAAS) or not rows.get(BARE):
        return []
    more = {name: rows[MAAS][name] - rows[BARE][name] for name in ("p50", "p99")}
    what = "added by authentication, limits and settlement, ms"
    return [(f"{where}: {name} {what}", more[name], f"at most {most}", more[name] <= most) for name, most in (("p50", 3), ("p99", 10))]


def as_json(figures: Figures, summary: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """All that the page and the plot need, and every raw figure."""
    return {"facts": facts, "summary": summary, "targets": targets(summary), "rounds": asdict(figures)}
