"""How learned teams cope with agents that mislead: planted worlds with 0 to 4 misleaders among 8 agents.

    python eval/robustness.py [--rollouts 3000] [--seeds 0 1 2 3 4] [--minutes 10] [--out FILE]

Every method learns from the same number of rollouts in the same worlds. Worlds of one seed have the same
holders and solvers however many misleaders they have, so what misleaders cost is a paired difference.
For each method and number of misleaders, over seeds (mean and 95 % t interval):

* regret: utility short of the best team's, exactly (200 fresh items, no sampling noise);
* score: probability of a correct answer, exactly; and how much of it is lost to misleaders;
* misled: share of the misleaders that the policy keeps in the team (``None`` where there are none);
* tokens an item.

Methods that keep all agents can't take a misleader out, only stop reading it: their regret is set
against the same best team as everybody's. Written after every world, cells that are there are kept, and
nothing is begun after --minutes, so that the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from benchmarks import commit
from scipy import stats

from agentcomm.errors import AgentCommError
from agentcomm.pruning.environment import Budget, Metered
from agentcomm.pruning.fitting import METHODS, learner
from agentcomm.pruning.planted import PlantedWorld

HERE = Path(__file__).parent
AGENTS, FACTS, ITEMS = 8, 2, 160
MISLEADERS = (0, 4, 2, 1, 3)
"""Both ends first, so that a run that is cut short still says what misleaders cost."""

SETTINGS: dict[str, dict[str, Any]] = {
    # Verified mining needs tens of thousands of rollouts; this mode is the one meant for fewer.
    "agp": {"mode": "reinforce"},
}


async def fit(method: str, world: PlantedWorld, rollouts: int, seed: int) -> dict[str, Any]:
    """What a method made of a world."""
    began = time.process_time()
    made = learner(method, seed=seed, embedder=world, settings=SETTINGS.get(method))
    metered = Metered(world, Budget(rollouts))
    policy = await made.fit(world.items(ITEMS, "learn"), metered, metered.budget)
    items = world.items(200, "score")
    found = world.assess(policy, items)
    kept = [
        len({f"a{i}" for i in world.layout[world.domain_of(item)].misleaders} & policy(item).masks[0].agents)
        for item in items
    ]
    return {
        "regret": found.regret,
        "score": found.correct,
        "utility": found.utility,
        "tokens": found.tokens,
        "node_f1": found.node_f1,
        "edge_f1": found.edge_f1,
        "misled": float(np.mean(kept)) / world.misleaders if world.misleaders else None,
        "rollouts": metered.rollouts,
        "seconds": round(time.process_time() - began, 2),
    }


def oracle(world: PlantedWorld) -> dict[str, Any]:
    """The best team."""
    found = world.assess(lambda item: world.oracle(world.domain_of(item)))
    return {
        "regret": 0.0,
        "score": found.correct,
        "utility": found.utility,
        "tokens": found.tokens,
        "misled": None,
    }


def summary(cells: dict[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Means over seeds with 95 % t intervals, and the loss to misleaders, paired by seed."""
    found: dict[str, Any] = {}
    for method in methods:
        rows: dict[str, Any] = {}
        for x in sorted(MISLEADERS):
            own = {
                c["seed"]: c
                for c in cells.values()
                if (c["method"], c["misleaders"]) == (method, x) and "regret" in c
            }
            if not own:
                continue
            rows[str(x)] = {
                name: spread([c[name] for c in own.values()])
                for name in ("regret", "score", "tokens", "misled")
                if all(c.get(name) is not None for c in own.values())
            }
            clean = {
                c["seed"]: c
                for c in cells.values()
                if (c["method"], c["misleaders"]) == (method, 0) and "regret" in c
            }
            both = sorted(own.keys() & clean.keys())
            if x and both:
                rows[str(x)]["score_lost"] = spread([clean[s]["score"] - own[s]["score"] for s in both])
                rows[str(x)]["regret_added"] = spread([own[s]["regret"] - clean[s]["regret"] for s in both])
        if rows:
            found[method] = rows
    return found


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return {"mean": round(mean, 4), "low": None, "high": None, "seeds": n}
    wide = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return {"mean": round(mean, 4), "low": round(mean - wide, 4), "high": round(mean + wide, 4), "seeds": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "robustness.json")
    a = parser.parse_args()
    end = time.monotonic() + 60 * a.minutes
    cells: dict[str, Any] = {}
    if a.out.exists():
        before = json.loads(a.out.read_text())
        if before["rollouts"] == a.rollouts:
            cells = before["cells"]

    def write() -> None:
        made = {
            "what": __doc__.split("\n\n")[0] if __doc__ else "",
            "command": f"python eval/robustness.py --rollouts {a.rollouts}",
            "commit": commit(),
            "rollouts": a.rollouts,
            "world": {"agents": AGENTS, "facts": FACTS, "domains": 4, "items": ITEMS},
            "settings": SETTINGS,
            "summary": summary(cells, ["oracle", *a.methods]),
            "cells": cells,
        }
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(made, indent=1) + "\n")

    for x in MISLEADERS:
        for seed in a.seeds:
            world = PlantedWorld(seed, agents=AGENTS, facts=FACTS, misleaders=x)
            cells[f"oracle {x} {seed}"] = {"method": "oracle", "misleaders": x, "seed": seed, **oracle(world)}
            for method in a.methods:
                key = f"{method} {x} {seed}"
                if "regret" in cells.get(key, {}):
                    continue
                if time.monotonic() > end:
                    write()
                    print(f"stopped after {a.minutes:g} minutes; the same command goes on", file=sys.stderr)
                    return
                cell: dict[str, Any] = {"method": method, "misleaders": x, "seed": seed}
                try:
                    cell |= anyio.run(fit, method, world, a.rollouts, seed)
                except (
                    AgentCommError,
                    KeyError,
                ) as error:  # a method that isn't there yet, or can't learn here
                    cell["error"] = f"{type(error).__name__}: {error}"
                cells[key] = cell
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in cell.items()}))
            write()
    write()


if __name__ == "__main__":
    main()
