"""The chart of the README: bars on a logarithmic scale, as SVG that needs nothing but text."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

from attrs import frozen

_WIDTH: Final = 760
_LEFT: Final = 170
_RIGHT: Final = 110
_TOP: Final = 58
_BAR: Final = 22
_STEP: Final = 34
_OURS: Final = "#2f6fde"
_OTHERS: Final = "#8a94a6"
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-size:15px;font-weight:600;fill:#2f6fde}"
    ".small{font-size:11px}"
)


@frozen
class Bar:
    name: str
    value: float
    is_ours: bool = False


def chart(title: str, note: str, bars: Sequence[Bar], unit: str) -> str:
    """One bar a system, each power of ten marked. Values above 0."""
    least = floor(log10(min(bar.value for bar in bars)))
    most = max(least + 1, ceil(log10(max(bar.value for bar in bars))))
    span, bottom = _WIDTH - _LEFT - _RIGHT, _TOP + _STEP * len(bars)

    def at(value: float) -> float:
        return _LEFT + span * (log10(value) - least) / (most - least)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 44}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
    ]
    for power in range(least, most + 1):
        x, label = at(10.0**power), f"{10.0**power:,.0f} {escape(unit)}"
        parts += [
            f'<path d="M{x:.1f} {_TOP - 8}V{bottom}" stroke="#8a94a6" stroke-opacity=".35"/>',
            f'<text class="small" x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle">{label}</text>',
        ]
    for number, bar in enumerate(bars):
        y = _TOP + _STEP * number
        colour = _OURS if bar.is_ours else _OTHERS
        end = max(at(bar.value), _LEFT + 1)
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>',
            f'<text x="{end + 8:.1f}" y="{y + 16}">{_number(bar.value)} {escape(unit)}</text>',
        ]
    parts += [f'<text class="small" x="12" y="{bottom + 28}">{escape(note)}</text>', "</svg>", ""]
    return "\n".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
