# SPDX-License-Identifier: Apache-2.0
"""Draws ratios as an SVG: a row for each job, a mark for each mode, on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

# Told apart by colour and shape; each is legible on white and on black.
MARKS = {
    "sampling": ("#1a9c6b", "diamond"),
    "recording": ("#2f7fd6", "circle"),
    "lsan": ("#9a6fd0", "triangle"),
    "heaptrack": ("#d9622b", "square"),
    "tracemalloc": ("#c2891c", "square"),
    "memray-native": ("#c2569b", "square"),
}
LEFT, RIGHT, TOP, HEIGHT, WIDTH = 250, 30, 64, 26, 860
TICKS = (1, 1.3, 2, 3, 5, 10, 20, 40)

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .small { font-size: 11px; fill: #57606a; }
  .grid { stroke: #8b949e; stroke-opacity: .35; }
  .even { fill: #8b949e; fill-opacity: .10; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .small { fill: #9da7b3; } }
"""


def shape(kind, x, y, colour, radius=5):
    fill = f'fill="{colour}"'
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {fill}/>'
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "triangle": ((0, -1.2), (1.2, 1), (-1.2, 1)),
    }[kind]
    points = " ".join(f"{x + dx * radius * .9:.1f},{y + dy * radius * .9:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {fill}/>'


class Scale:
    """Places ratios from a little below one to the largest."""

    def __init__(self, most):
        self.least = 0.92
        self.most = max(most * 1.15, 2)

    def x(self, ratio):
        share = math.log(max(ratio, self.least) / self.least) / math.log(self.most / self.least)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self):
        return [tick for tick in TICKS if tick <= self.most]


def legend(modes):
    parts, x = [], LEFT
    for name, title in modes:
        colour, kind = MARKS[name]
        parts.append(shape(kind, x + 6, 40, colour))
        parts.append(f'<text x="{x + 18}" y="44.5">{escape(title)}</text>')
        x += 34 + 7.2 * len(title)
    return parts


def svg(title, rows, modes):
    """A plot of rows (a title, and a Spread for each mode by name); modes are names with titles."""
    modes = [mode for mode in modes if mode[0] in MARKS and any(mode[0] in figures for _, figures in rows)]
    scale = Scale(max(figure.most for _, figures in rows for figure in figures.values()))
    height = TOP + HEIGHT * len(rows) + 30
    bottom = TOP + HEIGHT * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
        f'<text x="10" y="20" font-weight="600">{escape(title)}</text>', *legend(modes)]
    for tick in scale.ticks():
        x = scale.x(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        out.append(f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}×</text>')
    for number, (name, figures) in enumerate(rows):
        y = TOP + HEIGHT * number + HEIGHT / 2
        if number % 2 == 0:
            out.append(f'<rect class="even" x="0" y="{y - HEIGHT / 2}" width="{WIDTH}" height="{HEIGHT}"/>')
        out.append(f'<text x="10" y="{y + 4.5}">{escape(name)}</text>')
        for mode, _ in modes:
            if mode in figures:
                figure, (colour, kind) = figures[mode], MARKS[mode]
                out.append(
                    f'<line x1="{scale.x(figure.least):.1f}" x2="{scale.x(figure.most):.1f}" y1="{y}" y2="{y}" '
                    f'stroke="{colour}" stroke-width="2" stroke-opacity=".6"/>')
                out.append(shape(kind, scale.x(figure.median), y, colour))
    return "\n".join([*out, "</svg>", ""])
