"""Reinforce: a network learns from rollouts which team an item needs (query-conditioned REINFORCE).

Every iteration takes some items, draws a group of graphs for each from the network's own
probabilities, runs them, and makes those more likely that did better than their group's mean
(``pruning.md`` sections 3.4 and 4.2):

    loss = -mean((u - b) log pi(G | item)) - eta_t mean(sum of Bernoulli entropies) + penalty

The gradient of log pi with respect to the logits is known (m - q, A - p; Williams 1992), so draws
are made in numpy and only logits are differentiated.

Which lessons the planted world taught: without entropy shared weights first learn "drop everything"
and never recover; dividing by the group's standard deviation blows up noise where all graphs of an
item are nearly alike; a baseline from other items is worse than one from the same item.

Deliberately absent: the network (:mod:`agentcomm.pruning.network`), and learners of one graph for
all items (:mod:`agentcomm.pruning.static`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agentcomm.errors import ConfigError
from agentcomm.pruning.batches import (
    Baseline,
    Batch,
    Comparison,
    Log,
    Passes,
    check_items,
    plan,
    rollout_seed,
    stream,
)
from agentcomm.pruning.embeddings import Embedder, cached
from agentcomm.pruning.environment import Metered, Trial, run_trials
from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.policy import finite
from agentcomm.pruning.pool import FloatArray, Pool
from agentcomm.pruning.realise import EdgeProbabilities, Order, logit_gradient, realise
from agentcomm.task import Item

ITEMS, DRAWS = 11, 12
"""Numbers of this module's generators among those of a seed."""

Penalty = Callable[[Tensor, Tensor], Tensor]
"""Of node logits [B, N] and edge logits [B, N, N] to a scalar that is added to the loss."""


async def train_network(
    network: TopologyNetwork,
    items: Sequence[Item],
    environment: Metered,
    embedder: Embedder,
    *,
    iterations: int = 600,
    queries: int = 8,
    group: int = 8,
    lr: float = 0.003,
    entropy: float | None = None,
    learn_nodes: bool = True,
    baseline: Baseline = "group",
    seed: int = 0,
    order: Order = "random",
    penalty: Penalty | None = None,
) -> tuple[Batch, ...]:
    """Train ``network`` in place.

    Parameters
    ----------
    network:
        Of the environment's pool and the embedder's dimensions.
    items:
        ``learn`` items; taken in shuffled passes.
    environment:
        The plan is cut to its budget of rollouts, in whole groups, before anything is run.
    iterations, queries, group:
        Graphs per iteration: ``group`` for each of ``queries`` items.
    lr:
        Adam's.
    entropy:
        eta, annealed linearly to 0; ``None`` is 0.1, or 0.03 where agents aren't learned.
    learn_nodes:
        ``False`` keeps every agent and leaves the node head alone.
    baseline:
        See :class:`~agentcomm.pruning.batches.Comparison`.
    penalty:
        Further terms of the loss.

    Returns
    -------
    tuple[Batch, ...]
        One for each iteration.

    Raises
    ------
    LimitExceeded
        If the budget doesn't allow one group; in the middle, for a limit on tokens or money.
    TaskError
        For items of another split, or if nothing can be learned (all rollouts failed, or all were
        worth the same).
    ConfigError
        For settings that make no sense, or if learning diverges: it names the iteration.
    """
    items = check_items(items)
    if iterations < 1 or queries < 1 or group < 1 or not lr > 0:
        raise ConfigError(
            f"iterations={iterations}, queries={queries}, group={group}, lr={lr}; all must be above 0"
        )
    compare = Comparison(baseline)
    if compare.grouped and group < 2:
        raise ConfigError(f"baseline={baseline!r} with group={group}: one graph has nothing to compare with")
    sizes = plan(iterations, queries * group, environment, unit=group)
    eta = entropy if entropy is not None else (0.1 if learn_nodes else 0.03)
    pool = environment.pool
    look = cached(embedder)
    roles = _tensor(look.embed([agent.role for agent in pool.agents]))
    # How many decisions hang on each pair's logit: spatial and temporal edges share it.
    decisions = _tensor(pool.spatial_allowed.astype(np.float64) + pool.temporal_allowed)
    upcoming, rng = Passes(items, stream(seed, ITEMS)), stream(seed, DRAWS)
    optimiser = torch.optim.Adam(network.trained(), lr=lr)
    log = Log()
    network.train()
    for iteration, size in enumerate(sizes):
        batch = upcoming.take(size // group)
        nodes, edges = network(roles, _tensor(look.embed([item.question for item in batch])))
        proposals = _proposals(pool, nodes, edges, learn_nodes, iteration)
        trials: list[Trial] = []
        for item, probabilities in zip(batch, proposals, strict=True):
            for _ in range(group):
                drawn = realise(probabilities, pool, mode="bernoulli", rng=rng, order=order)
                trial_seed = rollout_seed(seed, iteration, len(trials))
                trials.append(Trial(item, drawn.topology, trial_seed, drawn, probabilities))
        outcomes = await run_trials(environment, trials)
        advantages = compare.advantages(outcomes, group)
        counted = sum(o.utility is not None for o in outcomes)
        if not counted:  # failures say nothing
            log.add(iteration, outcomes, 0.0, 0.0)
            continue
        node_pull, edge_pull = np.zeros(nodes.shape), np.zeros(edges.shape)
        surrogate = 0.0
        for at, (trial, advantage) in enumerate(zip(trials, advantages.tolist(), strict=True)):
            if advantage == 0.0 or trial.realisation is None or trial.probabilities is None:
                continue
            pull = logit_gradient(trial.realisation, trial.probabilities)
            node_pull[at // group] += advantage / counted * pull.keep
            edge_pull[at // group] += advantage / counted * (pull.spatial + pull.temporal)
            surrogate -= advantage / counted * (trial.realisation.log_prob or 0.0)
        # Its gradient is that of -mean(advantage log pi); its value is not, hence the surrogate.
        climb = -(edges * _tensor(edge_pull)).sum()
        extra = -eta * (1 - iteration / len(sizes)) * _entropy(edges, decisions)
        if learn_nodes:
            climb = climb - (nodes * _tensor(node_pull)).sum()
            extra = extra - eta * (1 - iteration / len(sizes)) * _entropy(nodes, torch.ones(()))
        if penalty is not None:
            extra = extra + penalty(nodes, edges)
        optimiser.zero_grad()
        torch.autograd.backward(climb + extra)
        loss = finite(surrogate + float(extra.detach()), f"the loss of iteration {iteration}")
        length = finite(_length(network), f"the gradient of iteration {iteration}")
        optimiser.step()
        log.add(iteration, outcomes, loss, length)
    network.eval()
    return log.finish()


def _proposals(
    pool: Pool, nodes: Tensor, edges: Tensor, learn_nodes: bool, iteration: int
) -> list[EdgeProbabilities]:
    """For each query what the logits say, as :class:`~agentcomm.pruning.inference.NetworkPolicy` reads them."""
    if not bool(torch.isfinite(edges).all() and torch.isfinite(nodes).all()):
        finite(math.nan, f"a logit of iteration {iteration}")
    keep = torch.sigmoid(nodes.detach().double()).numpy() if learn_nodes else np.ones(nodes.shape)
    edge = torch.sigmoid(edges.detach().double()).numpy()
    masks = pool.spatial_allowed, pool.temporal_allowed
    return [EdgeProbabilities.of(q, p, p, *masks) for q, p in zip(keep, edge, strict=True)]


def _entropy(logits: Tensor, count: Tensor) -> Tensor:
    """Sum of the entropies of Bernoulli(sigma(logits)), ``count`` times each, mean over the queries."""
    entropies = nn.functional.softplus(logits) - logits * torch.sigmoid(logits)
    return (entropies * count).sum() / len(logits)


def _length(network: nn.Module) -> float:
    squares = [float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None]
    return float(np.sqrt(sum(squares)))


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
