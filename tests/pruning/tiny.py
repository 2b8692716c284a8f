"""A learner small enough for tests: tries random topologies, keeps the best one for all items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agentcomm.evaluation.splits import hash_of, require_learn
from agentcomm.pruning.environment import Budget, Environment, Metered, Trial, run_trials
from agentcomm.pruning.policy import Card, StaticPolicy
from agentcomm.pruning.realise import EdgeProbabilities, realise
from agentcomm.task import Item


@dataclass(frozen=True)
class Tiny:
    """``choices`` random topologies, each on every item that the budget allows."""

    seed: int = 0
    choices: int = 4
    keep: float = 0.6

    name: ClassVar[str] = "tiny"

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> StaticPolicy:
        require_learn(items)
        metered = environment if isinstance(environment, Metered) else Metered(environment, budget)
        pool, rng = metered.pool, np.random.default_rng(self.seed)
        even = EdgeProbabilities.of(
            np.full(len(pool), self.keep),
            np.full((len(pool), len(pool)), 0.4),
            np.full((len(pool), len(pool)), 0.5),
        )
        drawn = [realise(even, pool, mode="bernoulli", rng=rng) for _ in range(self.choices)]
        left = metered.rollouts_left
        count = self.choices * len(items) if left is None else min(left, self.choices * len(items))
        trials = [
            Trial(
                items[k // self.choices], drawn[k % self.choices].topology, k, drawn[k % self.choices], even
            )
            for k in range(count)
        ]
        worth = defaultdict(list)
        for k, outcome in enumerate(await run_trials(metered, trials)):
            if outcome.utility is not None:
                worth[k % self.choices].append(outcome.utility)
        best = max(worth, key=lambda k: np.mean(worth[k]))
        return StaticPolicy(
            pool,
            Card(
                "tiny",
                seed=self.seed,
                learned_from=frozenset(map(hash_of, items)),
                trace={"worth": {k: float(np.mean(v)) for k, v in worth.items()}},
            ),
            EdgeProbabilities.of_topology(pool, drawn[best].topology),
        )
