"""How fast the planted world is, and how far apart its reference teams are.

    python eval/planted.py [--quick] [--out eval/results/planted.json]

* speed: rollouts a second on one core (processor time of this process), for the formula alone,
  for drawing a topology and its outcome, and for executing it on the plain executor.
* references: expected utility of teams that know nothing, over 20 worlds of the standard size.
* static: the regret of the best single topology there is, by exhaustive search (4 agents), against
  the number of domains. No static learner can do better.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np

from agentcomm.graph import Topology
from agentcomm.pruning.planted import ExecutedWorld, PlantedWorld, all_topologies
from agentcomm.pruning.realise import EdgeProbabilities, realise

HERE = Path(__file__).parent


def per_second(action: Callable[[int], object], count: int) -> int:
    action(0)
    began = time.process_time()
    for seed in range(count):
        action(seed)
    return round(count / (time.process_time() - began))


def speed(count: int) -> dict[str, int]:
    world = PlantedWorld()
    items = world.items(100)
    even = EdgeProbabilities.constant(8, 0.5, 0.5)
    rng = np.random.default_rng(0)
    drawn = [realise(even, world.pool, mode="bernoulli", rng=rng).topology for _ in range(100)]

    def draw_and_run(seed: int) -> None:
        topology = realise(even, world.pool, mode="bernoulli", rng=rng).topology
        world.outcome(items[seed % 100], topology, seed)

    async def execute() -> int:
        executed = ExecutedWorld(world)
        began = time.process_time()
        for seed in range(count // 10):
            await executed.rollout(items[seed % 100], drawn[seed % 100], seed)
        return round(count / 10 / (time.process_time() - began))

    return {
        "rollouts": per_second(lambda s: world.outcome(items[s % 100], drawn[s % 100], s), count),
        "draws_and_rollouts": per_second(draw_and_run, count),
        "executed": anyio.run(execute),
    }


def references() -> dict[str, float]:
    worlds = [PlantedWorld(seed) for seed in range(20)]
    rng = np.random.default_rng(0)
    even = EdgeProbabilities.constant(8, 0.5, 0.5)

    def graph(world: PlantedWorld, kept: list[int], edges: list[tuple[int, int]]) -> Topology:
        keep, spatial = np.zeros(8, dtype=bool), np.zeros((8, 8), dtype=bool)
        keep[kept] = True
        for i, j in edges:
            spatial[i, j] = True
        return world.pool.topology(keep, spatial)

    def mean(make: Callable[[PlantedWorld, int], Topology]) -> float:
        return round(float(np.mean([w.expected_utility(d, make(w, d)) for w in worlds for d in range(4)])), 4)

    everyone = list(range(8))
    return {
        "oracle": mean(lambda w, d: w.oracle(d)),
        "oracle, all agents kept": mean(lambda w, d: w.oracle(d, nodes=False)),
        "lone solver": mean(lambda w, d: graph(w, [w.layout[d].solver], [])),
        "random, q = p = 0.5": mean(lambda w, _: realise(even, w.pool, mode="bernoulli", rng=rng).topology),
        "edgeless": mean(lambda w, _: graph(w, everyone, [])),
        "complete DAG": mean(lambda w, _: graph(w, everyone, list(itertools.combinations(range(8), 2)))),
    }


def static(worlds: int) -> dict[str, dict[str, float]]:
    tried = list(all_topologies(PlantedWorld(agents=4, misleaders=1).pool))
    found = {}
    for domains in (1, 2, 3, 4):
        gaps = []
        for seed in range(worlds):
            world = PlantedWorld(seed, agents=4, domains=domains, misleaders=1)
            each = [[world.expected_utility(d, t) for d in range(domains)] for t in tried]
            oracle = np.mean([world.oracle_utility(d) for d in range(domains)])
            gaps.append(float(oracle - np.mean(each, axis=1).max()))
        found[str(domains)] = {
            "mean": round(float(np.mean(gaps)), 4),
            "least": round(min(gaps), 4),
            "most": round(max(gaps), 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "planted.json")
    args = parser.parse_args()
    count = 1000 if args.quick else 10_000
    results = {
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "rollouts_per_second_per_core": speed(count),
        "expected_utility": references(),
        "regret_of_best_static_topology_by_domains": static(3 if args.quick else 20),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
