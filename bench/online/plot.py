"""Bars of throughput by server and concurrency as an SVG, one panel a model, raw ONNX Runtime as a line."""

from typing import Any
from xml.sax.saxutils import escape

COLOURS = {
    "maas": "#1b6e53", "maas-bare": "#7fc3a8", "fastapi": "#4c6fa5", "litserve": "#b8860b", "bentoml": "#a34f6d", "mlserver": "#777777",
}  # fmt: skip
PANEL, HEIGHT, LEFT, TOP, GAP = 380, 240, 56, 64, 24


def draw(summary: dict[str, Any]) -> str:
    """The whole document. Bars are medians, whiskers the lowest and highest round; the dashed line is raw at batch 32."""
    width, height = LEFT + len(summary) * (PANEL + LEFT), TOP + HEIGHT + 56
    names = list(dict.fromkeys(name for facts in summary.values() for name in facts["servers"]))
    parts = [_legend(names)]
    parts += [_panel(LEFT + i * (PANEL + LEFT), model, facts, names) for i, (model, facts) in enumerate(summary.items())]
    style = "text{font:12px system-ui,sans-serif;fill:#222}.small{font-size:10px;fill:#555}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Calls a second by server">'
    return f'{head}<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def _legend(names: list[str]) -> str:
    marks = []
    for i, name in enumerate(names):
        x = LEFT + i * 110
        marks.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{COLOURS.get(name, "#999")}"/>{_text(x + 17, 22, name)}')
    return "".join(marks)


def _panel(x: float, model: str, facts: dict[str, Any], names: list[str]) -> str:
    rates = [row["highest"] for rows in facts["servers"].values() for row in rows.values()]
    raw = facts["raw"]["per_second"]
    top = 1.08 * max(rates, default=1.0)
    at = [str(one) for one in sorted({int(key) for rows in facts["servers"].values() for key in rows})]
    group = PANEL / max(len(at), 1)
    parts = [_text(x, TOP - 14, f"{model}: calls a second at concurrency {', '.join(at)}"), _axis(x, top)]
    for i, concurrency in enumerate(at):
        parts.append(_text(x + (i + 0.5) * group, TOP + HEIGHT + 18, concurrency, "middle"))
        parts += [_bar(x + i * group, group, j, names, facts, concurrency, top) for j in range(len(names))]
    if raw <= top:
        parts.append(_raw_line(x, _y(raw, top)))
    return "".join(parts)


def _raw_line(x: float, y: float) -> str:
    line = f'<path d="M{x:.1f} {y:.1f}h{PANEL}" stroke="#c0392b" stroke-dasharray="5 4"/>'
    return line + _text(x + PANEL, y - 4, "raw, batches of 32", "end", "small")


def _bar(x: float, group: float, index: int, names: list[str], facts: dict[str, Any], concurrency: str, top: float) -> str:
    rows = {str(key): row for key, row in facts["servers"].get(names[index], {}).items()}
    if concurrency not in rows:
        return ""
    row, width = rows[concurrency], (group - GAP) / len(names)
    left, y = x + GAP / 2 + index * width, _y(row["per_second"], top)
    middle, low, high = left + width / 2, _y(row["lowest"], top), _y(row["highest"], top)
    size, colour = f'width="{width - 2:.1f}" height="{TOP + HEIGHT - y:.1f}"', COLOURS.get(names[index], "#999")
    bar = f'<rect x="{left:.1f}" y="{y:.1f}" {size} fill="{colour}"/>'
    return f'{bar}<path d="M{middle:.1f} {low:.1f}V{high:.1f}" stroke="#222"/>'


def _axis(x: float, top: float) -> str:
    marks = []
    for i in range(5):
        value = top * i / 4
        y = _y(value, top)
        marks.append(f'<path d="M{x:.1f} {y:.1f}h{PANEL}" stroke="#ddd"/>{_text(x - 6, y + 4, f"{value:,.0f}", "end", "small")}')
    return "".join(marks)


def _y(value: float, top: float) -> float:
    return TOP + HEIGHT * (1 - value / top)


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
