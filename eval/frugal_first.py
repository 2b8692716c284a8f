"""How many random teams frugal should try first, when rollouts are few.

    python eval/frugal_first.py [--first 40 20 12 6] [--budgets 240 300 500] [--worlds 100 132] [--minutes 30]

Frugal tries ``first`` random teams on each kind of question before it believes anything: of 240
rollouts on four kinds that were 184. Each cell is a fit on 160 ``learn`` items of the standard planted
world, assessed exactly on 200 ``score`` items. Worlds of 100 and above are those that frugal is
developed on; eval/learners.py reports on 0 to 9. Differences are paired by world.

Finished cells are in the file: the same command goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, and no spinning beside other work

import anyio
from learners import ITEMS, interval

from agentcomm.pruning.environment import Budget, Metered
from agentcomm.pruning.frugal import Frugal
from agentcomm.pruning.planted import PlantedWorld

HERE = Path(__file__).parent
BEFORE = 40
"""What the others are compared with."""


def regret(seed: int, budget: int, first: int) -> float:
    world = PlantedWorld(seed)
    metered = Metered(world, Budget(rollouts=budget))
    learner = Frugal(seed=seed, embedder=world, first=first)
    policy = anyio.run(learner.fit, world.items(ITEMS), metered, metered.budget)
    return round(world.assess(policy).regret, 4)


def summary(cells: dict[str, float]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    keys = [tuple(map(int, k.split("|"))) for k in cells]
    for budget, first in sorted({k[:2] for k in keys}):
        own = {k[2]: cells["|".join(map(str, k))] for k in keys if k[:2] == (budget, first)}
        row: dict[str, object] = {"budget": budget, "first": first, "regret": interval(list(own.values()))}
        less = [
            cells[f"{budget}|{BEFORE}|{w}"] - r for w, r in own.items() if f"{budget}|{BEFORE}|{w}" in cells
        ]
        if first != BEFORE and less:
            row["less_regret_than_40"] = interval(less)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--first", type=int, nargs="+", default=[40, 12, 20, 6])
    parser.add_argument("--budgets", type=int, nargs="+", default=[240, 300, 500])
    parser.add_argument("--worlds", type=int, nargs=2, default=[100, 132], help="from, and below")
    parser.add_argument("--minutes", type=float, default=30.0, help="no new cell after so long")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "frugal_first.json")
    a = parser.parse_args()
    cells: dict[str, float] = json.loads(a.out.read_text())["cells"] if a.out.exists() else {}
    ends = time.monotonic() + 60 * a.minutes
    for world, budget, first in itertools.product(range(*a.worlds), a.budgets, a.first):
        if (key := f"{budget}|{first}|{world}") in cells:
            continue
        if time.monotonic() > ends:
            print("time is up: the same command goes on")
            break
        cells[key] = regret(world, budget, first)
        a.out.write_text(json.dumps({"summary": summary(cells), "cells": cells}, indent=1) + "\n")
    for row in summary(cells):
        print(row)


if __name__ == "__main__":
    main()
