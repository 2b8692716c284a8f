"""G-Designer: a network draws the edges that each item needs; every agent is kept.

Deliberately absent: removing agents (:mod:`agentcomm.pruning.agp`), and the training loop
(:mod:`agentcomm.pruning.reinforce`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from agentcomm.errors import ConfigError
from agentcomm.evaluation.splits import hash_of
from agentcomm.pruning.batches import Baseline, Spending, check_items, metered, trace
from agentcomm.pruning.embeddings import Embedder, cached, notes_of, or_hashed
from agentcomm.pruning.environment import Budget, Environment
from agentcomm.pruning.fixed import Fixed
from agentcomm.pruning.inference import Architecture, NetworkPolicy
from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.policy import Card, Policy
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import Order
from agentcomm.pruning.reinforce import Penalty, train_network
from agentcomm.pruning.static import check_settings, settings_of
from agentcomm.task import Item

WEIGHTS = 31
"""Number of the generator of initial weights among those of a seed."""


@dataclass(frozen=True)
class GDesigner:
    """Edges for each item, all agents kept (Zhang et al. 2024, arXiv 2410.11782).

    What differs: AGP's network, with directed edges and every parameter trained, instead of a graph
    auto-encoder of which the optimiser sees one part (it is deterministic, not variational, in the
    released code); no virtual task node (the query is part of every agent's features); graphs are
    compared within groups on the same item instead of not at all; the anchor to a base topology and
    the low-rank term, which stands for the paper's refinement, are options and off. The released
    recipe (40 to 80 queries, no baseline) learns little; :meth:`as_released` has it.

    Parameters
    ----------
    iterations, queries, group, lr, entropy, baseline, order:
        As :func:`~agentcomm.pruning.reinforce.train_network`.
    anchor, base:
        mu_a of mu_a ||P - A0||_F^2 / N^2, A0 the fixed topology ``base`` (``"graph"``: the user's own).
    rank:
        mu_r of mu_r ||P||_* / N.
    temperature:
        tau, at least 1.
    embedder:
        Of roles and questions; hashed words by default, which know no meaning.
    """

    name: ClassVar[str] = "gdesigner"
    paper: ClassVar[str] = "Zhang et al. 2024, G-Designer, arXiv 2410.11782"

    iterations: int = 300
    queries: int = 8
    group: int = 8
    lr: float = 0.003
    entropy: float = 0.03
    baseline: Baseline = "group"
    anchor: float = 0.0
    base: str = "chain"
    rank: float = 0.0
    temperature: float = 1.0
    order: Order = "random"
    profile: Literal["corrected", "as_released"] = "corrected"
    embedder: Embedder | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, above=("iterations", "queries", "group", "lr"))
        if self.anchor < 0 or self.rank < 0 or self.entropy < 0:
            raise ConfigError(
                f"gdesigner with anchor={self.anchor}, rank={self.rank}, entropy={self.entropy}; none can be "
                f"below 0"
            )

    @classmethod
    def as_released(cls, embedder: Embedder | None = None, seed: int = 0) -> GDesigner:
        """10 batches of 4 queries, one graph each, no baseline, Adam at 0.1, the released network."""
        return cls(
            10,
            4,
            1,
            lr=0.1,
            entropy=0.0,
            baseline="none",
            order="row_major",
            profile="as_released",
            embedder=embedder,
            seed=seed,
        )

    async def fit(self, items: Sequence[Item], environment: Environment, budget: Budget) -> Policy:
        """A network's policy for the environment's pool, all agents kept.

        Raises
        ------
        TaskError, ConfigError, LimitExceeded
            As :func:`~agentcomm.pruning.reinforce.train_network`.
        """
        items = check_items(items)
        meter = metered(environment, budget)
        spending = Spending.start(meter)
        pool = meter.pool
        embedder = cached(or_hashed(self.embedder))
        architecture = Architecture(
            len(pool), embedder.dimensions, profile=self.profile, temperature=self.temperature
        )
        start = int(np.random.SeedSequence([self.seed, WEIGHTS]).generate_state(1)[0])
        network = TopologyNetwork(architecture, start)
        batches = await train_network(
            network,
            items,
            meter,
            embedder,
            iterations=self.iterations,
            queries=self.queries,
            group=self.group,
            lr=self.lr,
            entropy=self.entropy,
            learn_nodes=False,
            baseline=self.baseline,
            seed=self.seed,
            order=self.order,
            penalty=self._penalty(pool),
        )
        card = Card(
            self.name,
            self.profile,
            self.seed,
            settings_of(self) | {"embedder": embedder.id},
            frozenset(map(hash_of, items)),
            spending.since(),
            paper=self.paper,
            notes=notes_of(embedder),
            trace=trace(batches),
        )
        return NetworkPolicy(pool, card, architecture, network.arrays(), embedder, learn_nodes=False)

    def _penalty(self, pool: Pool) -> Penalty | None:
        if not self.anchor and not self.rank:
            return None
        n = len(pool)
        allowed = torch.from_numpy(pool.spatial_allowed | pool.temporal_allowed)
        if not self.anchor or self.base == "graph":
            base = pool.spatial_allowed if pool.edges == "graph" else np.zeros((n, n), np.bool_)
            if self.anchor and pool.edges == "complete":
                raise ConfigError("gdesigner with base='graph' and edges='complete'; name a fixed topology")
        else:
            base = pool.arrays(Fixed(self.base).of(pool)).spatial
        towards = torch.from_numpy(base.astype(np.float32))

        def penalty(nodes: Tensor, edges: Tensor) -> Tensor:
            p = torch.where(allowed, torch.sigmoid(edges), 0.0)
            total = torch.zeros(())
            if self.anchor:
                total = total + self.anchor * (p - towards).square().sum(dim=(1, 2)).mean() / n**2
            if self.rank:
                total = total + self.rank * torch.linalg.matrix_norm(p, ord="nuc").mean() / n
            return total

        return penalty
