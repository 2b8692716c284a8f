"""Imitation: a network is fitted to graphs that were found to be good, without a single rollout.

Stage II of AGP (``pruning.md`` section 3.5). With y the agents kept, A the edges executed, w a
label's weight and W_ij = y_i y_j on the pairs that the pool has,

    L_edge = sum(w W BCE(edge logit, A)) / sum(w W)
    L_node = mean_i BCE(node logit, y) + sparsity * mean_i q_i
    L      = L_edge + node L_node + off L_off + conservation L_cons

``off`` and ``conservation`` belong to the released code and are 0: p means "edge, given that both
agents are kept", and pairs of removed agents never execute. Released too: ``edge_loss="squared"``,
(p - A)^2. What the released code imitates, every pair that passed a cycle check, is not offered:
labels are what was executed.

Training stops when the held-out items' loss no longer falls, and keeps the weights that were best.
Deliberately absent: where labels come from, and the learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.pruning.network import TopologyNetwork
from agentcomm.pruning.policy import finite
from agentcomm.pruning.pool import BoolArray, FloatArray
from agentcomm.task import Item

RARE, MOST, LEAST = 0.2, 5.0, 0.2
"""A class of agents below this share is weighted up; the ratio stays between the other two."""
GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Thresholds that are tried."""
ALIKE = 0.01
"""F-scores this near are no reason to leave 0.5."""


@dataclass(frozen=True)
class Training:
    """How a network is fitted to labels.

    Parameters
    ----------
    lr, weight_decay, batch, epochs:
        AdamW's, and at most so many passes. The last, smaller batch of a pass counts too.
    patience, min_gain:
        Stop after so many passes in which the held-out loss did not fall by ``min_gain``.
    node, sparsity, off, conservation:
        beta, lambda_s, lambda_off and lambda_c of the module's losses.
    edge_loss:
        ``"bce"`` or, as released, ``"squared"``.
    optimiser:
        ``"adamw"`` or, as released, ``"adam"`` without weight decay.
    """

    lr: float = 0.003
    weight_decay: float = 0.03
    batch: int = 32
    epochs: int = 100
    patience: int | None = 6
    min_gain: float = 1e-4
    node: float = 1.0
    sparsity: float = 0.05
    off: float = 0.0
    conservation: float = 0.0
    edge_loss: Literal["bce", "squared"] = "bce"
    optimiser: Literal["adamw", "adam"] = "adamw"

    def __post_init__(self) -> None:
        if not self.lr > 0 or min(self.batch, self.epochs) < 1 or (self.patience or 1) < 1:
            raise ConfigError(
                f"lr={self.lr}, batch={self.batch}, epochs={self.epochs}, patience={self.patience}; all must "
                f"be above 0 (patience None: never stop early)"
            )

    @classmethod
    def released(cls) -> Training:
        """As the published code trains: for comparison only."""
        return cls(
            lr=0.1,
            weight_decay=0.0,
            epochs=3,
            patience=None,
            sparsity=0.0,
            off=1.0,
            conservation=0.01,
            edge_loss="squared",
            optimiser="adam",
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Targets:
    """What should be imitated: one row a label.

    Parameters
    ----------
    queries:
        [R, d], the items' embeddings.
    keep, spatial, temporal:
        What was executed: [R, N], [R, N, N], [R, N, N], booleans.
    weight:
        [R], above 0.
    spatial_allowed, temporal_allowed:
        [N, N]: pairs that the pool has.
    """

    queries: FloatArray
    keep: BoolArray
    spatial: BoolArray
    temporal: BoolArray
    weight: FloatArray
    spatial_allowed: BoolArray
    temporal_allowed: BoolArray

    def __len__(self) -> int:
        return len(self.weight)

    def part(self, rows: BoolArray) -> Targets:
        """Some of the labels."""
        return Targets(
            self.queries[rows],
            self.keep[rows],
            self.spatial[rows],
            self.temporal[rows],
            self.weight[rows],
            self.spatial_allowed,
            self.temporal_allowed,
        )

    @property
    def both(self) -> BoolArray:
        """[R, N, N]: pairs whose agents are both kept."""
        return self.keep[:, :, None] & self.keep[:, None, :]

    def check(self, *, learn_nodes: bool = True) -> tuple[str, ...]:
        """Refuse labels that can't tell anything apart; what else should be known about them.

        Raises
        ------
        TaskError
            If there is none, if one keeps nobody, if all keep every agent (``learn_nodes``), or if all
            are one and the same graph.
        """
        if not len(self):
            raise TaskError("nothing to learn from: no labels; mine some, or give records a weight above 0")
        if empty := int((~self.keep.any(axis=1)).sum()):
            raise TaskError(
                f"all agents are pruned in {empty} of {len(self)} labels, and a team of nobody can't answer; give "
                f"those records a weight of 0"
            )
        if learn_nodes and self.keep.all():
            raise TaskError(
                f"a single class: all {len(self)} labels keep every agent, so who can go can't be learned; mine "
                f"with more candidates or a higher price on tokens, or learn edges alone (learn_nodes=False)"
            )
        notes = []
        places = self.both & self.spatial_allowed
        edges = self.spatial[places]
        if edges.size and edges.all() == edges.any():
            which = "every possible edge" if edges.all() else "no edge"
            if len(np.unique(self.keep, axis=0)) == 1:
                raise TaskError(
                    f"a single class: all {len(self)} labels are one and the same graph with {which}; use a fixed "
                    f"topology, or mine with more candidates"
                )
            notes.append(f"all {len(self)} labels have {which} among kept agents; edges were not learned")
        return tuple(notes)


def hold_out(items: Sequence[Item], share: float = 0.2) -> list[bool]:
    """:func:`hold_out_hashes` of items."""
    return hold_out_hashes([hash_of(item) for item in items], share)


def hold_out_hashes(hashes: Sequence[str], share: float = 0.2) -> list[bool]:
    """Which items early stopping and calibration are left with: a share, chosen by hash alone.

    At least one where there are two; none of one.
    """
    ranks = {h: h[16:] for h in hashes}  # not the first digits: an item's split goes by them
    if len(ranks) < 2:
        return [False] * len(hashes)
    held = set(sorted(ranks, key=ranks.__getitem__)[: max(1, round(share * len(ranks)))])
    return [h in held for h in hashes]


class Loss(NamedTuple):
    """The whole and two of its parts."""

    total: Tensor
    edge: Tensor
    node: Tensor


class _Tensors(NamedTuple):
    queries: Tensor
    keep: Tensor
    spatial: Tensor
    temporal: Tensor
    weight: Tensor
    spatial_allowed: Tensor
    temporal_allowed: Tensor

    @classmethod
    def of(cls, t: Targets) -> _Tensors:
        arrays = (t.queries, t.keep, t.spatial, t.temporal, t.weight, t.spatial_allowed, t.temporal_allowed)
        return cls(*(torch.tensor(np.asarray(a, dtype=np.float32)) for a in arrays))

    def rows(self, rows: Tensor) -> _Tensors:
        return self._replace(
            queries=self.queries[rows],
            keep=self.keep[rows],
            spatial=self.spatial[rows],
            temporal=self.temporal[rows],
            weight=self.weight[rows],
        )


def train(
    network: TopologyNetwork,
    roles: FloatArray,
    targets: Targets,
    held: Targets | None,
    training: Training,
    rng: np.random.Generator,
    *,
    learn_nodes: bool = True,
) -> list[dict[str, float]]:
    """Fit ``network`` in place; the losses of every pass.

    Parameters
    ----------
    roles:
        [N, d].
    held:
        What early stopping looks at; without it the last weights stay.

    Raises
    ------
    ConfigError
        If a loss is no longer a number; it names the pass.
    """
    rolls = torch.tensor(roles, dtype=torch.float32)
    ours = _Tensors.of(targets)
    theirs = _Tensors.of(held) if held is not None and len(held) else None
    balance = _balance(targets)
    parameters = list(network.trained())
    optimiser: torch.optim.Optimizer
    if training.optimiser == "adamw":
        optimiser = torch.optim.AdamW(parameters, lr=training.lr, weight_decay=training.weight_decay)
    else:
        optimiser = torch.optim.Adam(parameters, lr=training.lr)
    trace: list[dict[str, float]] = []
    best, waited = float("inf"), 0
    kept = network.arrays()
    network.train()
    for epoch in range(1, training.epochs + 1):
        order = torch.from_numpy(rng.permutation(len(targets)))
        sums = np.zeros(3)
        for start in range(0, len(order), training.batch):
            rows = order[start : start + training.batch]
            loss = _loss(network, rolls, ours.rows(rows), training, balance, learn_nodes)
            optimiser.zero_grad()
            torch.autograd.backward(loss.total)
            found = [finite(float(part.detach()), f"the loss of pass {epoch}") for part in loss]
            optimiser.step()
            sums += np.array(found) * len(rows)
        total, edge, node = (sums / len(order)).tolist()
        row = {"epoch": epoch, "loss": total, "edge": edge, "node": node}
        trace.append(row)
        if theirs is None:
            continue
        with torch.no_grad():
            outside = _loss(network, rolls, theirs, training, balance, learn_nodes)
        row["held_out"] = finite(float(outside.total), f"the held-out loss of pass {epoch}")
        if training.patience is None:
            continue
        if row["held_out"] < best - training.min_gain:
            best, waited, kept = row["held_out"], 0, network.arrays()
        else:
            waited += 1
            if waited >= training.patience:
                break
    if theirs is not None and training.patience is not None:
        network.load(kept)
    network.eval()
    return trace


def _balance(targets: Targets) -> tuple[float, float]:
    """Weights of agents to keep and to remove: 1, but where one class is rare."""
    share = float(np.average(targets.keep.mean(axis=1), weights=targets.weight))
    rare = min(share, 1.0 - share)
    if not 0.0 < rare < RARE:
        return 1.0, 1.0
    ratio = float(np.clip((1.0 - share) / share, LEAST, MOST))
    return 2.0 * ratio / (1.0 + ratio), 2.0 / (1.0 + ratio)


def _loss(
    network: TopologyNetwork,
    roles: Tensor,
    t: _Tensors,
    training: Training,
    balance: tuple[float, float],
    learn_nodes: bool,
) -> Loss:
    node_logits, edge_logits = network(roles, t.queries)
    w = t.weight[:, None, None]
    both = t.keep[:, :, None] * t.keep[:, None, :]
    p = torch.sigmoid(edge_logits)

    def of_pairs(truth: Tensor) -> Tensor:
        if training.edge_loss == "squared":
            return (p - truth) ** 2
        return functional.binary_cross_entropy_with_logits(edge_logits, truth, reduction="none")

    pairs = t.spatial_allowed * both * w
    pairs_t = t.temporal_allowed * both * w
    count = (pairs.sum() + pairs_t.sum()).clamp_min(1e-9)
    edge = ((pairs * of_pairs(t.spatial)).sum() + (pairs_t * of_pairs(t.temporal)).sum()) / count
    total = edge
    if training.off:
        outside = t.spatial_allowed * (1.0 - both) * w
        total = total + training.off * (outside * p**2).sum() / outside.sum().clamp_min(1e-9)
    if training.conservation:
        removed = (1.0 - t.keep)[:, :, None] * p
        total = total + training.conservation * _mean(removed.mean(dim=(1, 2)), t.weight)
    if not learn_nodes:
        return Loss(total, edge, torch.zeros(()))
    wrong = functional.binary_cross_entropy_with_logits(node_logits, t.keep, reduction="none")
    wrong = wrong * (balance[0] * t.keep + balance[1] * (1.0 - t.keep))
    node = _mean(wrong.mean(dim=1), t.weight)
    node = node + training.sparsity * _mean(torch.sigmoid(node_logits).mean(dim=1), t.weight)
    return Loss(total + training.node * node, edge, node)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum()


# ----------------------------------------------------------------------------- thresholds


class Thresholds(NamedTuple):
    """What is above them is alive."""

    node: float = 0.5
    edge: float = 0.5


def calibrate(keep: FloatArray, edge: FloatArray, targets: Targets, *, frugality: float = 1.0) -> Thresholds:
    """The thresholds of 0.05, 0.10 ... 0.95 at which what is predicted is most like the labels.

    F_beta with beta = 1 / ``frugality``: F1 at 1; above it a wrongly kept agent or edge weighs more
    than a missing one, so fewer tokens are used. Of those within :data:`ALIKE` of the best the one
    nearest 0.5 is taken: labels are noisy, and such differences are chance.

    Parameters
    ----------
    keep, edge:
        [R, N] and [R, N, N], the network's q and p on the labels' items. Edges are compared where
        the label keeps both agents.
    """
    pairs = targets.both & targets.spatial_allowed
    return Thresholds(
        _threshold(keep, targets.keep, targets.weight, np.ones_like(targets.keep), frugality),
        _threshold(edge, targets.spatial, targets.weight, pairs, frugality),
    )


def _threshold(
    likely: FloatArray, truth: BoolArray, weight: FloatArray, counts: BoolArray, frugality: float
) -> float:
    if not frugality > 0:
        raise ConfigError(f"frugality={frugality}; it must be above 0")
    beta2 = 1.0 / frugality**2
    w = counts * weight.reshape(-1, *[1] * (counts.ndim - 1))
    if not (w * truth).any():
        return 0.5

    def score(threshold: float) -> float:
        said = likely > threshold
        hit = float((w * (said & truth)).sum())
        extra, missing = float((w * (said & ~truth)).sum()), float((w * (~said & truth)).sum())
        return (1 + beta2) * hit / ((1 + beta2) * hit + extra + beta2 * missing)

    scores = {t: score(t) for t in GRID}
    good = [t for t in GRID if scores[t] >= max(scores.values()) - ALIKE]
    return min(good, key=lambda t: (abs(t - 0.5), t))
