"""Picture: who talked to whom, as one SVG; an edge is as wide as the tokens its reader paid.

Drawn here without a library and sent nowhere. The text inside is escaped, so names from a model
or a user can't become markup. Colours follow the reader's light or dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from agentcomm.graph import AgentGraph, Edge, Topology

WIDTH, HEIGHT, RADIUS, NODE = 260, 300, 88, 15
WIDEST = 9.0

_STYLE = """
  svg { background: #fff; color: #1f2937; font: 12px system-ui, sans-serif }
  .title { font-weight: 600; font-size: 13px } .note { fill: #6b7280; font-size: 11px }
  .node { fill: #e0e7ff; stroke: #4f46e5 } .decision { fill: #fef3c7; stroke: #d97706 }
  .dead { fill: #f3f4f6; stroke: #d1d5db } .edge { stroke: #4f46e5; fill: none; opacity: .6 }
  .temporal { stroke-dasharray: 5 4 } .cut { stroke: #d1d5db; fill: none; stroke-dasharray: 2 4 }
  .head { fill: #4f46e5; opacity: .85 } .name { text-anchor: middle; font-size: 11px }
  .tokens { text-anchor: middle; font-size: 9px; fill: #374151; paint-order: stroke; stroke: #fff; stroke-width: 3px }
  @media (prefers-color-scheme: dark) {
    svg { background: #0f172a; color: #e2e8f0 } text { fill: #e2e8f0 } .note { fill: #94a3b8 }
    .tokens { fill: #e2e8f0; stroke: #0f172a }
    .node { fill: #312e81; stroke: #a5b4fc } .decision { fill: #78350f; stroke: #fbbf24 }
    .dead { fill: #1e293b; stroke: #475569 } .edge { stroke: #a5b4fc } .head { fill: #a5b4fc }
    .cut { stroke: #475569 }
  }
"""


@dataclass(frozen=True)
class Panel:
    """One graph in the picture: a title, a line below it, and tokens by ``"sender->reader"``."""

    title: str
    note: str
    graph: AgentGraph
    tokens: Mapping[str, int]
    topology: Topology | None = None


def draw(panels: Sequence[Panel], *, columns: int = 3) -> str:
    """The panels side by side as one SVG; widths share one scale, so panels can be compared."""
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    most = max((t for p in panels for t in p.tokens.values()), default=1)
    body = [
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT})">{_panel(p, most)}</g>'
        for i, p in enumerate(panels)
    ]
    width, height = columns * WIDTH, rows * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><style>{_STYLE}</style><rect width="100%" height="100%" fill="none"/>{"".join(body)}</svg>\n'
    )


def _panel(panel: Panel, most: int) -> str:
    graph = panel.graph
    place = _places(graph)
    masks = (panel.topology or graph.topology()).masks
    alive = frozenset().union(*(m.agents for m in masks))
    edges_alive = frozenset().union(*(m.edges for m in masks))
    parts = [
        f'<text class="title" x="{WIDTH / 2}" y="20" text-anchor="middle">{escape(panel.title)}</text>',
        f'<text class="note" x="{WIDTH / 2}" y="36" text-anchor="middle">{escape(panel.note)}</text>',
    ]
    # Cut edges first, so that living ones lie on top.
    for edge in sorted(graph.edges, key=lambda e: e.key in edges_alive):
        tokens = panel.tokens.get(str(edge.key), 0)
        parts.append(_edge(edge, place, tokens, most, edge.key in edges_alive))
    for name in graph.names:
        x, y = place[name]
        kind = "dead" if name not in alive else "decision" if name == graph.decision else "node"
        label = name if len(name) <= 12 else name[:11] + "…"
        below = y + NODE + 12 if y >= HEIGHT / 2 else y - NODE - 5
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{NODE}" stroke-width="1.5">'
            f"<title>{escape(name)}</title></circle>"
            f'<text class="name" x="{x:.1f}" y="{below:.1f}" fill="currentColor">{escape(label)}</text>'
        )
    return "".join(parts)


def _places(graph: AgentGraph) -> dict[str, tuple[float, float]]:
    """The pool on a circle, the decision agent below its middle; a lone agent in the middle."""
    centre = (WIDTH / 2, HEIGHT / 2 + 15)
    pool = [n for n in graph.names if n != graph.decision]
    if not pool:
        return {graph.decision: centre}
    places = {graph.decision: (centre[0], centre[1] + RADIUS)}
    for i, name in enumerate(pool):
        # From the lower left over the top to the lower right: the bottom is the decision's.
        angle = math.pi * (1.15 - 1.3 * (i / (len(pool) - 1) if len(pool) > 1 else 0.5))
        places[name] = (centre[0] + RADIUS * math.cos(angle), centre[1] - RADIUS * math.sin(angle))
    return places


def _edge(edge: Edge, place: Mapping[str, tuple[float, float]], tokens: int, most: int, alive: bool) -> str:
    (x1, y1), (x2, y2) = place[edge.sender], place[edge.reader]
    if edge.sender == edge.reader:
        path = f"M{x1 - 8:.1f},{y1 - NODE:.1f} c-14,-26 30,-26 16,0"
        return f'<path class="{"edge temporal" if alive else "cut"}" d="{path}" stroke-width="1.2"/>'
    width = max(1.0, WIDEST * tokens / most) if alive else 1.0
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    head = 5 + width * 0.9
    start = (x1 + ux * NODE, y1 + uy * NODE)
    end = (x2 - ux * (NODE + head), y2 - uy * (NODE + head))
    bend = 14 if edge.kind == "spatial" else -22
    middle = ((x1 + x2) / 2 - uy * bend, (y1 + y2) / 2 + ux * bend)
    kind = ("edge" if edge.kind == "spatial" else "edge temporal") if alive else "cut"
    out = (
        f'<path class="{kind}" d="M{start[0]:.1f},{start[1]:.1f} Q{middle[0]:.1f},{middle[1]:.1f} '
        f'{end[0]:.1f},{end[1]:.1f}" stroke-width="{width:.1f}"><title>{escape(str(edge.key))}: '
        f"{tokens:,} tokens</title></path>"
    )
    if not alive:
        return out
    dx, dy = end[0] - middle[0], end[1] - middle[1]
    slope = math.hypot(dx, dy) or 1.0
    dx, dy = dx / slope, dy / slope
    half = head * 0.55
    tip = (end[0] + dx * head, end[1] + dy * head)
    out += (
        f'<polygon class="head" points="{tip[0]:.1f},{tip[1]:.1f} {end[0] - dy * half:.1f},{end[1] + dx * half:.1f} '
        f'{end[0] + dy * half:.1f},{end[1] - dx * half:.1f}"/>'
    )
    if tokens:
        at = ((start[0] + 2 * middle[0] + end[0]) / 4, (start[1] + 2 * middle[1] + end[1]) / 4)
        out += f'<text class="tokens" x="{at[0]:.1f}" y="{at[1] + 3:.1f}">{tokens:,}</text>'
    return out
