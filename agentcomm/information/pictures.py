"""Pictures: scores with their intervals over what messages cost or carry, and fitted curves, as plain SVG.

    svg = rate_distortion("qwen 1.5B answers", [Series("extract", [Point(16, 0.4, 0.3, 0.5)], fit=fit)])
    path.write_text(svg)

``scatter`` draws any of them; ``rate_distortion``, ``mi_against_score``, ``tokens_against_score`` and
``score_against_cost`` name the axes. All take plain numbers. Drawn without a library and sent nowhere;
names are escaped; colours follow the reader's light or dark mode, and every series has a mark of its own
shape beside its colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

import numpy as np

from agentcomm.errors import UserError
from agentcomm.information.rate_distortion import RateDistortion
from agentcomm.information.score_matrix import Array

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 34, 46
LINE = 18
"""Height of a line of the legend."""
COLOURS = (
    ("#4f46e5", "#a5b4fc"),
    ("#d97706", "#fbbf24"),
    ("#047857", "#34d399"),
    ("#be185d", "#f472b6"),
    ("#0369a1", "#38bdf8"),
    ("#57534e", "#d6d3d1"),
)
"""Of the series, in light and dark mode; after the last it begins again with open marks."""
_MARKS = ("circle", "square", "triangle", "diamond", "cross", "circle")


@dataclass(frozen=True)
class Point:
    """A place with intervals: ``low`` to ``high`` upright, ``x_low`` to ``x_high`` across."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one colour; ``fit`` is drawn as a line in its band, else ``joined`` points by a thin one."""

    name: str
    points: Sequence[Point]
    fit: RateDistortion | None = None
    joined: bool = False


@dataclass(frozen=True)
class Level:
    """A level that holds for all x: an end such as the full context."""

    name: str
    y: float
    low: float | None = None
    high: float | None = None


def rate_distortion(
    title: str, series: Sequence[Series], levels: Sequence[Level] = (), *, rate: str = "tokens that are read"
) -> str:
    """Loss over the rate, with fits and their bands; ``levels`` are the full and no context."""
    return scatter(title, series, x=rate, y="loss (1 − score)", levels=levels)


def mi_against_score(title: str, series: Sequence[Series], *, x: str = "bits about the context") -> str:
    """Score over the information of compressors' messages: a point a compressor."""
    return scatter(title, series, x=x, y="score", from_zero=False)


def tokens_against_score(
    title: str,
    series: Sequence[Series],
    levels: Sequence[Level] = (),
    *,
    x: str = "tokens an item, all calls",
) -> str:
    """Score over the tokens that an item took."""
    return scatter(title, series, x=x, y="score", levels=levels)


def score_against_cost(title: str, series: Sequence[Series], *, x: str = "cost an item") -> str:
    """Score over what an item cost, for policies such as routing, always and never."""
    return scatter(title, series, x=x, y="score")


def scatter(
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    levels: Sequence[Level] = (),
    from_zero: bool = True,
) -> str:
    """Points, intervals and curves as one SVG.

    Parameters
    ----------
    x, y:
        What the axes are called. y is cut off at 0 and 1 where all of it lies there.
    from_zero:
        Whether x begins at 0.

    Raises
    ------
    UserError
        If there is nothing to draw, or something that is no finite number.
    """
    points = [p for s in series for p in s.points]
    if not points:
        raise UserError("a picture needs at least one point")
    if not all(math.isfinite(v) for p in points for v in (p.x, p.y)):
        raise UserError("a point of the picture is not a finite number; leave what is unknown out")
    rows = _legend_rows([s.name for s in series], [level.name for level in levels])
    scale = _Scale.of(points, levels, from_zero, TOP + LINE * len(rows))
    body = [
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
        *_legend(rows),
        *scale.axes(x, y),
    ]
    body += [_level(level, i, scale) for i, level in enumerate(levels)]
    body += [_curve(i, s, scale) for i, s in enumerate(series)]
    taken: list[tuple[float, float]] = []
    for i, one in enumerate(series):
        body += [_point(i, one.name, p, scale, taken) for p in one.points]
    height = HEIGHT + LINE * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(title)}"><style>{_style()}</style>'
        f"{''.join(body)}</svg>\n"
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``.

    >>> ticks(0, 1.1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    size = 10.0 ** math.floor(math.log10((high - low) / about))
    step = min((size * k for k in (1, 2, 5, 10)), key=lambda s: abs((high - low) / s - about))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _style() -> str:
    light = "".join(f".s{i}{{--c:{a}}}" for i, (a, _) in enumerate(COLOURS))
    dark = "".join(f".s{i}{{--c:{b}}}" for i, (_, b) in enumerate(COLOURS))
    return f"""
  svg {{ background: #fff; color: #1f2937; font: 12px system-ui, sans-serif }} text {{ fill: currentColor }}
  .title {{ font-weight: 600; font-size: 13px }} .grid {{ stroke: #e5e7eb }} .axis {{ stroke: #9ca3af }}
  .level {{ stroke: #6b7280; stroke-dasharray: 6 4; fill: none }} .about {{ fill: #6b7280; opacity: .12 }}
  .l1 {{ stroke-dasharray: 2 3 }} .small {{ font-size: 10px }}
  {light}
  .mark {{ fill: var(--c); stroke: var(--c); stroke-width: 1.5 }} .open {{ fill: none }}
  .bar {{ stroke: var(--c); stroke-width: 1.5 }} .line {{ stroke: var(--c); stroke-width: 1.8; fill: none }}
  .thin {{ stroke-width: 1; opacity: .6 }} .band {{ fill: var(--c); opacity: .13 }}
  @media (prefers-color-scheme: dark) {{
    svg {{ background: #0f172a; color: #e2e8f0 }} .grid {{ stroke: #1e293b }} .axis {{ stroke: #475569 }}
    .level {{ stroke: #94a3b8 }} .about {{ fill: #94a3b8 }} .band {{ opacity: .18 }}
    {dark}
  }}
"""


# -- the parts ------------------------------------------------------------------------------


def _spread(low: float, high: float) -> float:
    """What numbers differ by; 0 where it is rounding, which no axis can be divided into."""
    return high - low if high - low > 1e-3 * max(abs(low), abs(high)) else 0.0


@dataclass(frozen=True)
class _Scale:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    top: float
    bottom: float = field(default=0.0)

    @classmethod
    def of(cls, points: Sequence[Point], levels: Sequence[Level], from_zero: bool, top: float) -> _Scale:
        xs = [v for p in points for v in (p.x, p.x_low, p.x_high) if v is not None]
        upright = [(p.y, p.low, p.high) for p in points] + [(e.y, e.low, e.high) for e in levels]
        ys = [v for values in upright for v in values if v is not None]
        x_low, x_high = min(xs), max(xs)
        space = _spread(x_low, x_high) or abs(x_high) or 1.0
        x_low = min(0.0, x_low) if from_zero else x_low - 0.08 * space
        x_high += 0.1 * ((x_high - x_low) or 1.0)
        low, high = min(ys), max(ys)
        space = _spread(low, high) or 0.2
        y_low, y_high = low - 0.12 * space, high + 0.12 * space
        if low >= 0 and high <= 1:
            y_low, y_high = max(0.0, y_low), min(1.0, y_high)
        return cls(x_low, x_high, y_low, y_high, top, top + HEIGHT - TOP - BOTTOM)

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        kept = min(max(value, self.y_low), self.y_high)
        return self.bottom - (kept - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)

    def axes(self, x: str, y: str) -> list[str]:
        right = WIDTH - RIGHT
        across, up = ticks(self.x_low, self.x_high), ticks(self.y_low, self.y_high)
        out = []
        for v in up:
            at = self.y(v)
            out.append(
                f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
                f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(v, up)}</text>'
            )
        out.append(
            f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{self.bottom:.1f}" y2="{self.bottom:.1f}"/>'
        )
        out += [
            f'<text x="{self.x(v):.1f}" y="{self.bottom + 17:.1f}" text-anchor="middle">{_number(v, across)}</text>'
            for v in across
        ]
        middle = (self.top + self.bottom) / 2
        out.append(
            f'<text x="{(LEFT + right) / 2}" y="{self.bottom + 37:.1f}" text-anchor="middle">{escape(x)}</text>'
            f'<text transform="translate(14,{middle:.1f}) rotate(-90)" text-anchor="middle">{escape(y)}</text>'
        )
        return out


def _number(value: float, among: Sequence[float]) -> str:
    step = min((b - a for a, b in pairwise(among)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


Entry = tuple[str, int, str]
"""Kind (``"series"`` or ``"level"``), its number, its name."""


def _legend_rows(series: Sequence[str], levels: Sequence[str]) -> list[list[tuple[float, Entry]]]:
    """Entries side by side, as many as fit a line, each with its x."""
    entries = [("series", i, name) for i, name in enumerate(series)]
    entries += [("level", i, name) for i, name in enumerate(levels)]
    rows: list[list[tuple[float, Entry]]] = []
    at = float(WIDTH)
    for kind, i, name in entries:
        shown = _short(name, 60)
        wide = 32 + 6.9 * len(shown)
        if at + wide > WIDTH - RIGHT and not (rows and at == LEFT):
            rows.append([])
            at = LEFT
        rows[-1].append((at, (kind, i, shown)))
        at += wide
    return rows


def _legend(rows: Sequence[Sequence[tuple[float, Entry]]]) -> list[str]:
    out = []
    for line, row in enumerate(rows):
        y = 22 + LINE * (line + 1)
        for x, (kind, i, name) in row:
            sign = (
                f'<line class="level l{i}" x1="{x:.0f}" x2="{x + 16:.0f}" y1="{y - 4}" y2="{y - 4}"/>'
                if kind == "level"
                else f'<g class="{_class(i)}">{_mark(i, x + 8, y - 4)}</g>'
            )
            out.append(f'{sign}<text x="{x + 20:.0f}" y="{y}">{escape(name)}</text>')
    return out


def _level(level: Level, i: int, scale: _Scale) -> str:
    left, right, y = LEFT, WIDTH - RIGHT, scale.y(level.y)
    about = ""
    if level.low is not None and level.high is not None:
        high, low = scale.y(level.high), scale.y(level.low)
        about = f'<rect class="about" x="{left}" width="{right - left}" y="{high:.1f}" height="{low - high:.1f}"/>'
    return (
        f'{about}<line class="level l{i}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}">'
        f"<title>{escape(level.name)}: {level.y:.3f}</title></line>"
    )


def _curve(i: int, series: Series, scale: _Scale) -> str:
    if series.fit is not None:
        first = max(0.0, scale.x_low)
        rates = np.linspace(first, max(scale.x_high, first + 1e-9), 97)
        band = series.fit.band(rates)
        shade = ""
        if band is not None:
            there = _path(rates, band[1], scale, "M")
            back = _path(rates[::-1], band[0][::-1], scale, "L")
            shade = f'<path class="band" d="{there} {back} Z"/>'
        curve = f'<path class="line" d="{_path(rates, series.fit.at(rates), scale, "M")}"/>'
        return f'<g class="{_class(i)}">{shade}{curve}</g>'
    if series.joined and len(series.points) > 1:
        ordered = sorted(series.points, key=lambda p: p.x)
        d = _path([p.x for p in ordered], [p.y for p in ordered], scale, "M")
        return f'<g class="{_class(i)}"><path class="line thin" d="{d}"/></g>'
    return ""


def _path(xs: Sequence[float] | Array, ys: Sequence[float] | Array, scale: _Scale, first: str) -> str:
    places = [f"{scale.x(float(x)):.1f},{scale.y(float(y)):.1f}" for x, y in zip(xs, ys, strict=True)]
    return first + " L".join(places)


def _point(i: int, name: str, p: Point, scale: _Scale, taken: list[tuple[float, float]]) -> str:
    x, y = scale.x(p.x), scale.y(p.y)
    said = f"{name}{', ' if p.label else ''}{p.label}: {p.y:.3f} at {p.x:,.4g}"
    out = ""
    if p.low is not None and p.high is not None:
        said += f" [{p.low:.3f}, {p.high:.3f}]"
        out += f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(p.low):.1f}" y2="{scale.y(p.high):.1f}"/>'
    if p.x_low is not None and p.x_high is not None:
        x1, x2 = scale.x(p.x_low), scale.x(p.x_high)
        out += f'<line class="bar" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    label = "" if not p.label else _label(_short(p.label, 40), x, y, scale, taken)
    return f'<g class="{_class(i)}">{out}{_mark(i, x, y)}<title>{escape(said)}</title></g>{label}'


def _label(text: str, x: float, y: float, scale: _Scale, taken: list[tuple[float, float]]) -> str:
    """A label beside its point where there is room; where there is none, the point's title says it."""
    wide = 6.0 * len(text)
    for dx, dy in ((8, -6), (8, 13), (-8 - wide, -6), (-8 - wide, 13)):
        left, at = x + dx, y + dy
        inside = left >= LEFT and left + wide <= WIDTH and scale.top <= at <= scale.bottom
        if inside and not any(abs(at - v) < 11 and abs(left - u) < wide + 4 for u, v in taken):
            taken.append((left, at))
            return f'<text class="small" x="{left:.1f}" y="{at:.1f}">{escape(text)}</text>'
    return ""


def _class(i: int) -> str:
    return f"s{i % len(COLOURS)}"


def _mark(i: int, x: float, y: float, r: float = 4.5) -> str:
    kind: str = _MARKS[i % len(_MARKS)]
    opened = " open" if i % len(COLOURS) == len(COLOURS) - 1 or i >= len(COLOURS) else ""
    if kind == "circle":
        return f'<circle class="mark{opened}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    corners: dict[str, Callable[[], list[tuple[float, float]]]] = {
        "square": lambda: [(-r, -r), (r, -r), (r, r), (-r, r)],
        "triangle": lambda: [(0, -1.2 * r), (1.1 * r, 0.9 * r), (-1.1 * r, 0.9 * r)],
        "diamond": lambda: [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)],
        "cross": lambda: [(-r, -r), (r, r), (0, 0), (r, -r), (-r, r), (0, 0)],
    }
    places = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[kind]())
    return f'<polygon class="mark{opened}" points="{places}"/>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
