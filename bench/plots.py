"""SVG plots, written by hand: bars with their spread, and curves. Pure.

They are text, so that the report keeps no binary files, and read well on a
light and on a dark page.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.stats import median, number

WIDTH, LABELS, RIGHT = 720, 230, 110
BAR, SPACE, TOP = 18, 8, 34
# For systems in the order of their first appearance; readable without colours
# too, since every bar has its name beside it.
COLOURS = ("#2f6fde", "#2f9e6e", "#8b5fd6", "#c2742d", "#b9475b", "#7a7f87", "#9aa0a8", "#5d6470")
STYLE = "font-family: sans-serif; font-size: 12px; fill: #7a7f87"


def frame(title: str, height: int, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" style="{STYLE}" role="img">'
    name = f'<title>{escape(title)}</title><text x="0" y="18" font-size="14" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, name, *body, "</svg>", ""])


def bars(title: str, unit: str, groups: Mapping[str, Sequence[float]]) -> str:
    """A bar a system, as long as its median, with a line from its smallest to
    its largest value."""
    largest = max((max(values) for values in groups.values()), default=0.0) or 1.0
    scale = (WIDTH - LABELS - RIGHT) / largest
    body = []
    for index, (name, values) in enumerate(groups.items()):
        y = TOP + index * (BAR + SPACE)
        middle = y + BAR / 2
        colour = COLOURS[index % len(COLOURS)]
        low, high = (LABELS + scale * end for end in (min(values), max(values)))
        text = f"{number(median(values))} {unit}"
        body += [
            f'<text x="{LABELS - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{scale * median(values):.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#1b1e23" stroke-width="2"/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>',
        ]
    return frame(title, TOP + len(groups) * (BAR + SPACE), body)


def curves(title: str, unit: str, series: Mapping[str, Sequence[float]]) -> str:
    """Which share of the values is at most so large, on a scale of powers of
    ten."""
    height, left, bottom = 300, 50, 40
    values = [max(value, 1e-3) for line in series.values() for value in line]
    low, high = tens(min(values, default=1.0)), tens(max(values, default=1.0)) + 1
    wide, tall = WIDTH - left - 20, height - TOP - bottom

    def x(value: float) -> float:
        return left + wide * (math.log10(max(value, 1e-3)) - low) / (high - low)

    def y(share: float) -> float:
        return TOP + tall * (1 - share)

    body = []
    for power in range(low, high + 1):
        at = x(10.0**power)
        body.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{TOP + tall}" stroke="#d0d3d8"/>')
        body.append(f'<text x="{at:.1f}" y="{height - 22}" text-anchor="middle">{10.0**power:g}</text>')
    for share in (0.0, 0.5, 0.9, 1.0):
        body.append(f'<text x="{left - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
        body.append(f'<line x1="{left}" y1="{y(share):.1f}" x2="{left + wide}" y2="{y(share):.1f}" stroke="#d0d3d8"/>')
    for index, (name, line) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(f"{x(v):.1f},{y((n + 1) / len(line)):.1f}" for n, v in enumerate(sorted(line)))
        body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{left + 10 + index * 170}" y="{height - 4}" fill="{colour}">{escape(name)}</text>')
    body.append(f'<text x="{WIDTH - 20}" y="{height - 4}" text-anchor="end">{escape(unit)}</text>')
    return frame(title, height, body)


def tens(value: float) -> int:
    """The power of ten at or below it."""
    return math.floor(math.log10(value))
