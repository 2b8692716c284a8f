"""Untrained: a network policy's control, the same network with initial weights and its own thresholds.

What a trained policy gains over it is what training gave; the rest comes from having fewer agents and
edges at all. Initial weights put every probability near 0.5, so thresholds are taken at quantiles: each
candidate keeps a share of agents and of edges. Which share is best is for whoever runs them to find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentcomm.pruning.inference import NetworkPolicy
from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.policy import Card
from agentcomm.task import Item

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
STREAM = 21
"""The generator that AGP's initial weights come from."""


def untrained(policy: NetworkPolicy, items: Sequence[Item] = ()) -> dict[str, NetworkPolicy]:
    """The policy with initial weights, by the share of agents and edges that it keeps.

    Parameters
    ----------
    items:
        What the quantiles are taken over; without any there is one candidate, at thresholds 0.5.
    """
    card, pool = policy.card, policy.pool
    seed = int(np.random.default_rng([card.seed, STREAM, 0]).integers(2**31))
    fresh = TopologyNetwork(policy.architecture, seed).arrays()
    _, arrays = policy.state()
    fresh["weights"] = np.asarray(arrays["weights"], dtype=np.float32)  # whom agents hear is not learned

    def at(note: str, node: float, edge: float) -> NetworkPolicy:
        made = Card(
            "untrained",
            card.profile,
            card.seed,
            {"of": card.method},
            card.learned_from,
            {"rollouts": 0, "tokens": 0, "input_tokens": 0, "output_tokens": 0, "cost": 0.0},
            card.model,
            card.paper,
            (f"initial weights, {note}",),
        )
        return NetworkPolicy(
            pool,
            made,
            policy.architecture,
            fresh,
            policy.embedder,
            learn_nodes=policy.learn_nodes,
            node_threshold=node,
            edge_threshold=edge,
        )

    middle = at("thresholds 0.5", 0.5, 0.5)
    if not items:
        return {"half": middle}
    said = [middle.propose(item) for item in items]
    keep = np.concatenate([p.keep for p in said])
    allowed = pool.spatial_allowed | pool.temporal_allowed
    edges = np.concatenate([np.where(pool.spatial_allowed, p.spatial, p.temporal)[allowed] for p in said])
    made: dict[str, NetworkPolicy] = {}
    for share in SHARES:
        node = float(np.quantile(keep, 1 - share)) if policy.learn_nodes else 0.5
        edge = float(np.quantile(edges, 1 - share)) if edges.size else 0.5
        made[f"{share:.0%}"] = at(f"about {share:.0%} of agents and edges kept", node, edge)
    return made
