"""What finding out the value of every edge costs, and whether its intervals hold the truth.

    python eval/value.py [--repeats 30] [--out eval/results/value.json]

Planted worlds of one domain whose team reads completely (every earlier agent and the judge); the true
worth of every part follows from the world's formula. For ablation and for regression with several
numbers of items and sub-teams: episodes, share of intervals that hold the truth, mean width, root mean
squared error, and how often the misleader's parts with an effect of 0.05 or more are seen to harm, and
parts without an effect are said to matter (Holm's correction).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import commit

from agentcomm.evaluation.effects import Design, Effect, masked, paired
from agentcomm.evaluation.parts import Part, parts, useful, without
from agentcomm.evaluation.stats import holm
from agentcomm.evaluation.value import KEEP
from agentcomm.graph import AgentGraph, Edge, Topology
from agentcomm.pruning.planted import JUDGE, PlantedWorld

HERE = Path(__file__).parent


def world(agents: int, seed: int) -> PlantedWorld:
    return PlantedWorld(seed, agents=agents, domains=1, facts=2, misleaders=1)


def in_order(world: PlantedWorld) -> bool:
    """Whether holders and misleader come before the solver, so that a complete DAG lets it read them."""
    (plan,) = world.layout
    return max((*plan.holders, *plan.misleaders)) < plan.solver


class Team:
    """A planted world's agents in a complete DAG, its parts, and P(correct) of what is left of it."""

    def __init__(self, agents: int) -> None:
        self.world = next(w for w in map(partial(world, agents), itertools.count()) if in_order(w))
        names = [a.name for a in self.world.graph.agents if a.name != JUDGE]
        edges = [Edge(a, b) for a, b in itertools.combinations(names, 2)] + [Edge(a, JUDGE) for a in names]
        self.graph = AgentGraph(self.world.graph.agents, edges, JUDGE, system="")
        self.whole = useful(self.graph)
        self.parts: tuple[Part, ...] = tuple(p for p in parts(self.graph) if p.left is not None)
        place = {p.name: i for i, p in enumerate(self.parts)}
        self.needs = tuple(
            tuple(place[e] for e in p.ends if e in place) if p.kind == "edge" else () for p in self.parts
        )
        (misleader,) = self.world.layout[0].misleaders
        self.misleading = [f"a{misleader}" in (p.name, p.ends[0]) for p in self.parts]

    def left(self, kept: Sequence[bool]) -> Topology:
        out = [p for p, stays in zip(self.parts, kept, strict=True) if not stays]
        return without(
            self.graph,
            self.whole,
            agents=[p.name for p in out if p.kind == "agent"],
            pairs=tuple(p.ends for p in out if p.kind == "edge"),
        )

    def chance(self, topology: Topology) -> float:
        return self.world.chance(self.world.reading(0, topology))

    def ablation_truth(self) -> np.ndarray:
        return np.array([self.chance(self.whole) - self.chance(p.left) for p in self.parts if p.left])

    def regression_truth(self, draws: int = 1500) -> np.ndarray:
        """By paired draws of the exact chance; its own error is below 0.01."""
        rng = np.random.default_rng(99)
        truth = []
        for u, needed in enumerate(self.needs):
            total = 0.0
            for _ in range(draws):
                kept = rng.random(len(self.parts)) < KEEP
                kept[[*needed, u]] = True
                with_it = self.chance(self.left(kept))
                kept[u] = False
                total += with_it - self.chance(self.left(kept))
            truth.append(total / draws)
        return np.array(truth)


def score(team: Team, item: Any, topology: Topology, seed: int) -> float:
    return team.world.outcome(item, topology, seed).correct or 0.0


def ablate(team: Team, repeat: int, items: int) -> list[Effect]:
    drawn = team.world.items(items, "validate", start=repeat * items)
    rng = np.random.default_rng(repeat)
    whole = [score(team, i, team.whole, repeat) for i in drawn]
    ids = [i.id for i in drawn]
    return [
        paired(whole, [score(team, i, p.left, repeat) for i in drawn], ids, rng=rng)
        for p in team.parts
        if p.left is not None
    ]


def regress(team: Team, repeat: int, items: int, draws: int) -> list[Effect]:
    drawn = team.world.items(items, "learn", start=repeat * items)
    rng = np.random.default_rng([repeat, 1])
    kept = rng.random((items * draws, len(team.parts))) < KEEP
    owner = [i for i in drawn for _ in range(draws)]
    y = [score(team, i, team.left(k), n) for n, (i, k) in enumerate(zip(owner, kept, strict=True))]
    whole = {i.id: score(team, i, team.whole, repeat) for i in drawn}
    design = Design(kept, np.full(len(team.parts), KEEP), team.needs, tuple(i.id for i in owner))
    return list(masked(y, design, rng=rng, whole=[whole[i.id] for i in owner], resamples=400))


def judged(team: Team, truth: np.ndarray, repeats: Sequence[list[Effect]], episodes: int) -> dict[str, Any]:
    held, wide, error, found, false = [], [], [], [], []
    for effects in repeats:
        adjusted = holm([1.0 if e.p_value is None else e.p_value for e in effects])
        for e, p, t, bad in zip(effects, adjusted, truth, team.misleading, strict=True):
            if e.mean is None or e.low is None or e.high is None:
                continue
            held.append(e.low <= t <= e.high)
            wide.append(e.high - e.low)
            error.append((e.mean - t) ** 2)
            if bad and t < -0.05:
                found.append(p <= 0.05 and e.high < 0)
            if abs(t) < 1e-9:
                false.append(p <= 0.05)
    return {
        "episodes": episodes,
        "coverage": round(float(np.mean(held)), 4),
        "width": round(float(np.mean(wide)), 4),
        "rmse": round(float(np.sqrt(np.mean(error))), 4),
        "misleader_found": round(float(np.mean(found)), 3),
        "false_alarms_a_table": round(float(np.sum(false)) / len(repeats), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--agents", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "value.json")
    a = parser.parse_args()
    results: dict[str, Any] = {
        "command": "python eval/value.py",
        "commit": commit(),
        "repeats": a.repeats,
        "keep": KEEP,
    }
    for agents in a.agents:
        team = Team(agents)
        truth, average = team.ablation_truth(), team.regression_truth()
        m = len(team.parts)
        made: dict[str, Any] = {"parts": m}
        for n in (50, 100):
            made[f"ablation, {n} items"] = judged(
                team, truth, [ablate(team, r, n) for r in range(a.repeats)], n * (1 + m)
            )
        for n, k in ((50, 1), (50, 4), (100, 4), (100, 12)):
            made[f"regression, {n} items, {k} sub-teams each"] = judged(
                team, average, [regress(team, r, n, k) for r in range(a.repeats)], n * (1 + k)
            )
        results[f"{agents} agents"] = made
        print(json.dumps(made, indent=1))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
