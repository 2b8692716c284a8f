"""Regret against rollouts: how many rollouts each learner needs, on planted worlds whose best team is known.

    python eval/learners.py [--quick] [--minutes 30] [--only frugal,agp] [--sweep standard] [--out eval/results/learners.json]

One cell is one method, world, budget and seed: a policy is fitted on 160 ``learn`` items and
assessed on 200 ``score`` items, exactly (expected utility, no sampling noise). Sweeps:

* standard: budgets from 300 to 92,160 rollouts on the standard world (8 agents, 4 domains, 2
  facts, 2 misleaders, noise 0.3);
* agents, noise, misleaders, domains: one of them varied, at 3,000 rollouts.

Beside each learned policy stands a random DAG with as many agents and edges as the policy has, item
by item (``matched_regret``): a learner that can't beat it has learned nothing but a size. The table
says so of each (``over_matched``: how much more the learned team is worth, paired by world;
``beats_matched``: whether the 95 % interval lies above 0).
``complete`` is the whole team (method ``none``), ``random`` draws with q = p = 1/2. Methods of edges alone (gdesigner,
agentprune, gptswarm) keep all agents, so part of their regret can't be learned away; static ones
(gptswarm, agentprune, agentdropout) have one team for all items.

Finished cells are in the file: the same command goes on with those that are missing, cheap ones
first, until the time is up. Worlds have the seeds 0 to 9. The learner ``frugal`` was developed on
worlds with seeds of 100 and above.

A cell is of the commit it says, and is made anew only when it is taken out of the file. Seconds are
processor time of one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, and no spinning beside other work

import anyio
import numpy as np
from scipy import stats

from agentcomm.errors import LimitExceeded, TaskError
from agentcomm.pruning.environment import Budget, Metered
from agentcomm.pruning.fitting import learner
from agentcomm.pruning.fixed import MatchedRandom
from agentcomm.pruning.planted import PlantedWorld

HERE = Path(__file__).parent
BUDGETS = (300, 750, 1500, 3000, 6000, 12_000, 38_400, 92_160)
AT = 3000
ITEMS = 160
WORLDS = 5
"""A mean over fewer worlds proves nothing about a budget."""


class Method(NamedTuple):
    """A learner with its settings for a world and a budget, and how far it is worth following it."""

    name: str
    setting: Callable[[int], dict[str, Any]]
    least: int = 0
    most: int = 12_000


def climbing(per: int, key: str = "iterations") -> Callable[[int], dict[str, Any]]:
    """As many iterations as the budget allows, so that a larger budget is used."""
    return lambda budget: {key: max(1, budget // per)}


METHODS = {
    "complete": Method("none", lambda _: {}),
    "random": Method("random", lambda _: {}),
    "frugal": Method("frugal", lambda b: {"rollouts": b}),
    "gptswarm": Method("gptswarm", climbing(16), most=38_400),
    "gptswarm, agents": Method("gptswarm", lambda b: {"iterations": max(1, b // 16), "learn_nodes": True}),
    "agentprune": Method("agentprune", climbing(16)),
    "agentdropout": Method(
        "agentdropout",
        lambda b: {"node_iterations": max(1, b // 32), "edge_iterations": max(1, b // 32)},
    ),
    "gdesigner": Method("gdesigner", climbing(64), most=38_400),
    "agp, reinforce": Method(
        "agp", lambda b: {"mode": "reinforce", "iterations": max(1, b // 64)}, most=38_400
    ),
    "agp": Method("agp", lambda _: {}, least=3000, most=92_160),
}
FIXED = ("complete", "random")

SWEEPS: dict[str, list[dict[str, Any]]] = {
    "standard": [{}],
    "agents": [{"agents": 5}, {"agents": 20}, {"agents": 50}],
    "noise": [{"noise": 0.6}, {"noise": 1.0}, {"noise": 2.0}],
    "misleaders": [{"misleaders": 0}, {"misleaders": 1}, {"misleaders": 4}],
    "domains": [{"domains": 1}, {"domains": 2}, {"domains": 8}],
}
STANDARD = {"agents": 8, "noise": 0.3, "misleaders": 2, "domains": 4}


class Cell(NamedTuple):
    """What is run once."""

    method: str
    world: dict[str, Any]
    budget: int
    seed: int

    @property
    def key(self) -> str:
        what = ",".join(f"{k}={v}" for k, v in sorted(self.world.items())) or "standard"
        return f"{self.method}|{what}|{self.budget}|{self.seed}"


def cells(names: Sequence[str], sweeps: Sequence[str], quick: bool) -> Iterator[Cell]:
    """All cells: seed by seed, so that what is there when the time is up has every method."""
    budgets = (300, 750) if quick else BUDGETS
    for seed in range(2 if quick else 10):
        for sweep, name in itertools.product(sweeps, names):
            method = METHODS[name]
            for world in SWEEPS[sweep]:
                if name in FIXED:
                    yield Cell(name, world, 0, seed)
                    continue
                tried = budgets if sweep == "standard" else (AT if not quick else 300,)
                yield from (Cell(name, world, b, seed) for b in tried if method.least <= b <= method.most)


def run(cell: Cell) -> dict[str, Any]:
    """Fit, assess, and what it took."""
    method = METHODS[cell.method]
    world = PlantedWorld(cell.seed, **cell.world)
    metered = Metered(world, Budget(rollouts=cell.budget))
    began = time.process_time()
    base = {"method": cell.method, "world": cell.world, "budget": cell.budget, "seed": cell.seed}
    try:
        made = learner(method.name, seed=cell.seed, embedder=world, settings=method.setting(cell.budget))
        policy = anyio.run(made.fit, world.items(ITEMS), metered, metered.budget)
    except (LimitExceeded, TaskError) as refused:  # a budget below what the method can do anything with
        return {**base, "refused": str(refused), "rollouts": metered.rollouts}
    seconds = time.process_time() - began
    found = world.assess(policy)
    matched = None
    if cell.method not in FIXED:
        control = anyio.run(
            MatchedRandom(match=policy, seed=cell.seed).fit, world.items(1), world, Budget(rollouts=0)
        )
        matched = round(world.assess(control).regret, 4)
    return {
        **base,
        "regret": round(found.regret, 4),
        "matched_regret": matched,
        "node_f1": round(found.node_f1, 4),
        "edge_f1": round(found.edge_f1, 4),
        "correct": round(found.correct, 4),
        "tokens": round(found.tokens, 1),
        "rollouts": metered.rollouts,
        "learning_tokens": metered.tokens,
        "cpu_seconds": round(seconds, 2),
    }


def commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    )
    return told.stdout.strip() or "unknown"


# --------------------------------------------------------------------------------- summary


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and its 95 % t interval over seeds; worst."""
    n, mean = len(values), float(np.mean(values))
    half = None
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return {
        "mean": round(mean, 4),
        "low": None if half is None else round(mean - half, 4),
        "high": None if half is None else round(mean + half, 4),
        "worst": round(max(values), 4),
        "seeds": n,
    }


MEASURES = ("regret", "matched_regret", "node_f1", "edge_f1", "tokens", "learning_tokens", "cpu_seconds")


def summary(done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each world, method and budget."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for cell in done.values():
        if "refused" not in cell:
            world = ",".join(f"{k}={v}" for k, v in sorted(cell["world"].items())) or "standard"
            groups[world, cell["method"], cell["budget"]].append(cell)
    order = {name: i for i, name in enumerate(METHODS)}
    rows = []
    for (world, method, budget), group in sorted(
        groups.items(), key=lambda g: (g[0][0] != "standard", g[0][0], order.get(g[0][1], 99), g[0][2])
    ):
        row: dict[str, Any] = {"world": world, "method": method, "budget": budget}
        for name in MEASURES:
            values = [c[name] for c in group if c.get(name) is not None]
            if values:
                row[name] = interval(values)
        more = [c["matched_regret"] - c["regret"] for c in group if c.get("matched_regret") is not None]
        if more:
            row["over_matched"] = interval(more)
            row["beats_matched"] = beats(row["over_matched"])
        rows.append(row)
    return rows


def beats(gain: dict[str, float | int | None]) -> str:
    """Whether a gain over worlds is one."""
    low, high = gain["low"], gain["high"]
    if low is None or high is None:
        return "not shown"  # one world shows nothing
    return "yes" if low > 0 else "no: worse" if high < 0 else "not shown"


def refusals(done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What a method could do nothing with, and how it said so."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in done.values():
        if "refused" in cell:
            row = found.setdefault(
                (cell["method"], cell["budget"]),
                {"method": cell["method"], "budget": cell["budget"], "cells": 0, "said": cell["refused"]},
            )
            row["cells"] += 1
    return list(found.values())


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each row."""
    yield f"{'world':13} {'method':17} {'rollouts':>8}  regret [95 %]           seeds  beats the matched random DAG"
    for row in rows:
        r, gain = row["regret"], row.get("over_matched")
        spread = "" if r["low"] is None else f"[{r['low']:.3f}, {r['high']:.3f}]"
        verdict = ""
        if gain is not None:
            more = "" if gain["low"] is None else f" [{gain['low']:+.3f}, {gain['high']:+.3f}]"
            verdict = f"{row['beats_matched']}: {gain['mean']:+.3f}{more}"
        yield (
            f"{row['world']:13} {row['method']:17} {row['budget'] or '':>8}  {r['mean']:.3f} {spread:17} "
            f"{r['seeds']:>5}  {verdict}"
        )


def needed(rows: Sequence[dict[str, Any]], target: float = 0.1) -> dict[str, int | None]:
    """The smallest budget with a mean regret of at most ``target`` on the standard world, over ``WORLDS`` or more."""
    found: dict[str, int | None] = {}
    for row in rows:
        if row["world"] == "standard" and row["method"] not in FIXED:
            found.setdefault(row["method"], None)
            enough = row["regret"]["seeds"] >= WORLDS
            if enough and row["regret"]["mean"] <= target and found[row["method"]] is None:
                found[row["method"]] = row["budget"]
    return found


# --------------------------------------------------------------------------------- picture

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 430, 290, 52, 40, 14, 44
COLOURS = ("#4f46e5", "#d97706", "#0891b2", "#db2777", "#65a30d", "#7c3aed", "#dc2626", "#0f766e")
STYLE = """
  svg { background: #fff; color: #1f2937; font: 12px system-ui, sans-serif }
  .title { font-weight: 600; font-size: 13px } .note { fill: #6b7280; font-size: 11px }
  .grid { stroke: #e5e7eb } .fixed { stroke: #6b7280; stroke-dasharray: 5 4 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0f172a; color: #e2e8f0 } text { fill: #e2e8f0 } .note { fill: #94a3b8 }
    .grid { stroke: #334155 } .fixed { stroke: #94a3b8 }
  }
"""


class Axis(NamedTuple):
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        a, b, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(v)
        return self.start + (v - a) / (b - a) * (self.end - self.start)


def _curves(
    title: str, rows: Sequence[dict[str, Any]], measure: str, top: float, colours: dict[str, str]
) -> str:
    budgets = sorted({r["budget"] for r in rows if r["budget"]})
    if not budgets:
        return ""
    x = Axis(budgets[0], max(budgets[-1], budgets[0] + 1), LEFT, WIDTH - RIGHT, log=True)
    y = Axis(0.0, top, HEIGHT - BOTTOM, TOP)
    parts = [f'<text class="title" x="{WIDTH / 2}" y="18" text-anchor="middle">{title}</text>']
    for k in range(5):
        value = top * k / 4
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(value):.1f}" y2="{y.at(value):.1f}"/>'
            f'<text class="note" x="{LEFT - 6}" y="{y.at(value) + 4:.1f}" text-anchor="end">{value:,.4g}</text>'
        )
    parts += [
        f'<text class="note" x="{x.at(budget):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
        f"{budget if budget < 1000 else f'{budget / 1000:.3g}k'}</text>"
        for budget in budgets
    ]
    parts.append(
        f'<text class="note" x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">rollouts to learn from</text>'
    )
    for name, colour in colours.items():
        own = [r for r in rows if r["method"] == name and measure in r]
        if name in FIXED:
            for row in own:
                level = y.at(row[measure]["mean"])
                parts.append(
                    f'<line class="fixed" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}">'
                    f"<title>{name}</title></line>"
                    f'<text class="note" x="{WIDTH - RIGHT}" y="{level - 3:.1f}" text-anchor="end">{name}</text>'
                )
            continue
        points = [(x.at(r["budget"]), y.at(r[measure]["mean"]), r) for r in own]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in points)
        thick = 3 if name == "frugal" else 1.6
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        for a, b, row in points:
            found = row[measure]
            if found["low"] is not None:
                parts.append(
                    f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{y.at(found["low"]):.1f}" y2="{y.at(found["high"]):.1f}" '
                    f'stroke="{colour}" opacity=".5"/>'
                )
            parts.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"><title>{name}, {row["budget"]:,} '
                f"rollouts: {found['mean']:g} over {found['seeds']} seeds</title></circle>"
            )
    return "".join(parts)


def _sweep(title: str, name: str, rows: Sequence[dict[str, Any]], colours: dict[str, str]) -> str:
    """Regret at 3,000 rollouts against one parameter of the world."""
    found: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["budget"] not in (0, AT) or "regret" not in row:
            continue
        if row["world"] == "standard":
            found[row["method"]][STANDARD[name]] = row["regret"]
        elif row["world"].startswith(f"{name}="):
            found[row["method"]][float(row["world"].partition("=")[2])] = row["regret"]
    values = sorted({v for line in found.values() for v in line})
    if len(values) < 2:
        return ""
    place = {v: LEFT + 20 + i * (WIDTH - LEFT - RIGHT - 40) / (len(values) - 1) for i, v in enumerate(values)}
    top = 0.9
    y = Axis(0.0, top, HEIGHT - BOTTOM, TOP)
    parts = [f'<text class="title" x="{WIDTH / 2}" y="18" text-anchor="middle">{title}</text>']
    for k in range(4):
        level = y.at(0.3 * k)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
            f'<text class="note" x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{0.3 * k:.1f}</text>'
        )
    for value, at in place.items():
        parts.append(
            f'<text class="note" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
        )
    for method, colour in colours.items():
        line = sorted(found.get(method, {}).items())
        points = " ".join(f"{place[v]:.1f},{y.at(r['mean']):.1f}" for v, r in line)
        dash = ' class="fixed"' if method in FIXED else f' stroke="{colour}"'
        thick = 3 if method == "frugal" else 1.4
        parts.append(f'<polyline points="{points}" fill="none"{dash} stroke-width="{thick}"/>')
        for v, r in line:
            if r["low"] is not None and method == "frugal":
                parts.append(
                    f'<line x1="{place[v]:.1f}" x2="{place[v]:.1f}" y1="{y.at(r["low"]):.1f}" '
                    f'y2="{y.at(r["high"]):.1f}" stroke="{colour}" opacity=".5"/>'
                )
            parts.append(
                f'<circle cx="{place[v]:.1f}" cy="{y.at(r["mean"]):.1f}" r="2.5" fill="{colour}">'
                f"<title>{method}: {r['mean']:g} over {r['seeds']} seeds</title></circle>"
            )
    return "".join(parts)


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """All panels as one SVG."""
    there = [m for m in METHODS if any(r["method"] == m for r in rows)]
    learned = [m for m in there if m not in FIXED]
    colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(learned)}
    colours |= {m: "#6b7280" for m in there if m in FIXED}
    standard = [r for r in rows if r["world"] == "standard"]
    panels = [
        _curves("Regret (0: the best team there is)", standard, "regret", 0.9, colours),
        _curves("Agents recovered (F1)", standard, "node_f1", 1.0, colours),
        _curves("Edges recovered (F1)", standard, "edge_f1", 1.0, colours),
        _curves("Tokens of the learned team, per item", standard, "tokens", 6000.0, colours),
        _sweep(f"Regret at {AT:,} rollouts: agents", "agents", rows, colours),
        _sweep(f"Regret at {AT:,} rollouts: misleaders", "misleaders", rows, colours),
        _sweep(f"Regret at {AT:,} rollouts: noise of questions", "noise", rows, colours),
        _sweep(f"Regret at {AT:,} rollouts: domains", "domains", rows, colours),
    ]
    panels = [p for p in panels if p]
    columns = 2
    height = math.ceil(len(panels) / columns) * HEIGHT
    body = [
        f'<g transform="translate({i % columns * WIDTH},{i // columns * HEIGHT})">{p}</g>'
        for i, p in enumerate(panels)
    ]
    legend = [
        f'<g transform="translate({20 + i % 5 * 168},{height + 18 + i // 5 * 18})"><rect width="14" height="4" y="-5" '
        f'fill="{colours[m]}"/><text x="20">{m}</text></g>'
        for i, m in enumerate(learned)
    ]
    full = height + 30 + 18 * math.ceil(len(learned) / 5)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * WIDTH} {full}" width="{columns * WIDTH}" '
        f'height="{full}" role="img"><style>{STYLE}</style>{"".join(body)}'
        f'<g fill="currentColor">{"".join(legend)}</g></svg>\n'
    )


# ------------------------------------------------------------------------------------ main


def write(out: Path, done: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = summary(done)
    results = {
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "items": ITEMS,
        "needed_for_regret_0.1": needed(rows),
        "refused": refusals(done),
    }
    # A line for each row and each cell: there are thousands of them.
    text = json.dumps(results, indent=1)
    text = text.removesuffix("\n}") + ',\n "summary": [\n  '
    text += ",\n  ".join(map(json.dumps, rows)) + '\n ],\n "cells": {\n  '
    text += ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in done.items()) + "\n }\n}\n"
    half = out.with_name(out.name + ".part")
    half.write_text(text)
    half.replace(out)
    out.with_suffix(".svg").write_text(draw(rows))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, two small budgets, standard world")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new cell after so long")
    parser.add_argument("--only", default=",".join(n for n in METHODS if "," not in n) + ",reinforce,agents")
    parser.add_argument("--sweep", default=",".join(SWEEPS))
    parser.add_argument("--seeds", type=int, default=10, help="seeds below this one")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="only these")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "learners.json")
    args = parser.parse_args()
    asked = [a.strip() for a in args.only.split(",")]
    names = [n for n in METHODS if n in asked or n.rpartition(", ")[2] in asked]
    sweeps = ["standard"] if args.quick else [s for s in SWEEPS if s in args.sweep.split(",")]
    if not names or not sweeps:
        parser.error(f"nothing to run: methods are {', '.join(METHODS)}, sweeps {', '.join(SWEEPS)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = json.loads(args.out.read_text())["cells"] if args.out.exists() else {}
    wanted = {int(b) for b in args.budgets.split(",")}
    ends, head = time.monotonic() + 60 * args.minutes, commit()
    # Small budgets first: what is there when the time is up is a curve that is cut off, not one with holes.
    waiting = [c for c in cells(names, sweeps, args.quick) if c.key not in done]
    waiting = [c for c in waiting if c.seed < args.seeds and (not c.budget or c.budget in wanted)]
    waiting.sort(key=lambda c: (c.budget > AT, c.seed, c.budget))
    for number, cell in enumerate(waiting):
        if time.monotonic() > ends:
            print(f"time is up; {len(waiting) - number} cells are left: the same command goes on")
            break
        done[cell.key] = {**run(cell), "commit": head}
        write(args.out, done)
        print(
            cell.key,
            {k: done[cell.key].get(k) for k in ("regret", "tokens", "cpu_seconds", "refused")},
            flush=True,
        )
    rows = write(args.out, done)
    print("\n".join(table(rows)))
    for row in refusals(done):
        print(f"{row['method']} refused {row['budget']:,} rollouts ({row['cells']} worlds): {row['said']}")


if __name__ == "__main__":
    main()
