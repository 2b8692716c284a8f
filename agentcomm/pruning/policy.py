"""Policy: which agents and edges an item gets, learned or fixed; and its file.

A policy proposes probabilities for an item and realises them at thresholds, so equal items get
equal teams. On disk it is a folder with ``policy.json`` (kind, card, thresholds and the pool it is
for) and ``weights.safetensors`` (arrays by name); nothing in it can run. What it was learned from
is in its card, so that nobody scores it on those items.

Kinds register themselves by subclassing :class:`Policy`; :func:`load` finds them by the word in
the file.

Deliberately absent: learning.
"""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from agentcomm.errors import ConfigError, GraphError
from agentcomm.evaluation.rundir import write_json
from agentcomm.graph import AgentGraph, Topology
from agentcomm.message import content_id
from agentcomm.pruning.embeddings import Embedder, embedder_with_id
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities, Realisation, realise
from agentcomm.schedule import Schedule
from agentcomm.task import Item

FORMAT, VERSION = "agentcomm-policy", 1
POLICY, WEIGHTS = "policy.json", "weights.safetensors"

Arrays = Mapping[str, NDArray[Any]]

_HOMES = {"static": "policy", "network": "inference", "frugal": "frugal", "random": "fixed"}
"""Modules of kinds that aren't imported yet."""


@dataclass(frozen=True)
class Card:
    """Where a policy comes from.

    Parameters
    ----------
    method, profile, seed, settings:
        How it was learned: all hyperparameters, as JSON.
    learned_from:
        Hashes of the items behind it (:func:`~agentcomm.evaluation.splits.hash_of`).
    spent:
        What learning took: ``rollouts``, ``tokens``, ``input_tokens``, ``output_tokens``, ``cost``,
        ``unknown_tokens``, ``saved_tokens``, whatever is known of them. Unknown is ``None``.
    model:
        The model that was learned with.
    paper:
        The method's source.
    notes:
        What whoever uses it should know.
    trace:
        How learning went, as JSON: losses, utilities, the accuracy-token curve.
    """

    method: str
    profile: str = "corrected"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    learned_from: frozenset[str] = frozenset()
    spent: Mapping[str, float | None] = field(default_factory=dict)
    model: str | None = None
    paper: str = ""
    notes: tuple[str, ...] = ()
    trace: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, hashes in order."""
        return {
            "method": self.method,
            "profile": self.profile,
            "seed": self.seed,
            "settings": dict(self.settings),
            "learned_from": sorted(self.learned_from),
            "spent": dict(self.spent),
            "model": self.model,
            "paper": self.paper,
            "notes": list(self.notes),
            "trace": dict(self.trace),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """The reverse of :meth:`to_dict`."""
        return cls(
            **{
                **data,
                "learned_from": frozenset(data["learned_from"]),
                "notes": tuple(data.get("notes", ())),
            }
        )


class Policy(ABC):
    """Decides a topology for an item. A callable, as ``evaluate(topology=...)`` takes it.

    Parameters
    ----------
    pool:
        The agents and pairs it decides about.
    card:
        Where it comes from.
    node_threshold, edge_threshold:
        What is above them is alive.
    """

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Policy]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            Policy.kinds[cls.kind] = cls

    def __init__(
        self, pool: Pool, card: Card, *, node_threshold: float = 0.5, edge_threshold: float = 0.5
    ) -> None:
        for name, value in (("node", node_threshold), ("edge", edge_threshold)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"a {name} threshold of {value}; it must lie between 0 and 1")
        self.pool = pool
        self.card = card
        self.node_threshold = node_threshold
        self.edge_threshold = edge_threshold

    @abstractmethod
    def propose(self, item: Item) -> EdgeProbabilities:
        """How likely each agent and edge should be alive on ``item``."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], Arrays]:
        """What :meth:`restore` makes an equal policy from: JSON, and arrays by name."""

    @classmethod
    @abstractmethod
    def restore(
        cls,
        pool: Pool,
        card: Card,
        thresholds: tuple[float, float],
        data: Mapping[str, Any],
        arrays: Arrays,
        embedder: Embedder | None,
    ) -> Self:
        """The reverse of :meth:`state`; ``thresholds`` are those of nodes and edges.

        Raises
        ------
        ConfigError
            If the state doesn't fit the pool, or needs another embedder.
        """

    def realise(self, item: Item) -> Realisation:
        """The topology of ``item`` and how it came about."""
        return realise(
            self.propose(item),
            self.pool,
            node_threshold=self.node_threshold,
            edge_threshold=self.edge_threshold,
        )

    def __call__(self, item: Item) -> Topology:
        return self.realise(item).topology

    def schedule(self, topology: Topology) -> Schedule:
        """What runs under one of its topologies: a complete pool has edges that the graph lacks."""
        return self.pool.schedule(topology)

    def spec(self) -> dict[str, Any]:
        """What a run's configuration keeps: equal specs decide equally.

        Includes what learning spent, so that a comparison can say what it costs net.
        """
        data, arrays = self.state()
        digests = [
            (n, a.dtype.str, a.shape, content_id(a.tobytes().hex())) for n, a in sorted(arrays.items())
        ]
        thresholds = [self.node_threshold, self.edge_threshold]
        return {
            "policy": self.kind,
            "method": self.card.method,
            "seed": self.card.seed,
            "id": content_id(self.kind, self.pool.id, thresholds, data, digests)[:16],
            "edges": self.pool.edges,
            "spent": dict(self.card.spent),
        }

    def save(self, folder: Path | str) -> None:
        """Write ``policy.json`` and ``weights.safetensors``; a policy that lies there is replaced.

        Raises
        ------
        ConfigError
            If the folder can't be written or holds something else.
        """
        folder = Path(folder)
        data, arrays = self.state()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_arrays(folder / WEIGHTS, arrays)
            write_json(
                folder / POLICY,
                {
                    "format": FORMAT,
                    "version": VERSION,
                    "kind": self.kind,
                    "pool": {
                        "id": self.pool.id,
                        "agents": list(self.pool.names),
                        "decision": self.pool.decision,
                        "rounds": self.pool.rounds,
                        "edges": self.pool.edges,
                        "decision_scope": self.pool.decision_scope,
                    },
                    "thresholds": {"node": self.node_threshold, "edge": self.edge_threshold},
                    "arrays": sorted(arrays),
                    "state": data,
                    "card": self.card.to_dict(),
                },
            )
        except OSError as error:
            raise ConfigError(
                f"the policy can't be written to {folder}: {error.strerror}; choose another folder"
            ) from error


class StaticPolicy(Policy):
    """The same probabilities for every item."""

    kind = "static"

    def __init__(
        self,
        pool: Pool,
        card: Card,
        probabilities: EdgeProbabilities,
        *,
        node_threshold: float = 0.5,
        edge_threshold: float = 0.5,
    ) -> None:
        super().__init__(pool, card, node_threshold=node_threshold, edge_threshold=edge_threshold)
        self.probabilities = probabilities
        self._realised = super().realise(_ANY)
        if not self._realised.raw_keep.any():
            alive = np.flatnonzero(np.atleast_2d(self._realised.keep).any(axis=0))
            kept = ", ".join(pool.names[i] for i in alive.tolist())
            note = (
                f"all agents are pruned at a threshold of {node_threshold:g}, and a team of nobody can't answer: the "
                f"likeliest is kept ({kept})"
            )
            if note not in card.notes:
                self.card = dataclasses.replace(card, notes=(*card.notes, note))

    def propose(self, item: Item) -> EdgeProbabilities:
        return self.probabilities

    def realise(self, item: Item) -> Realisation:
        return self._realised

    def state(self) -> tuple[dict[str, Any], Arrays]:
        p = self.probabilities
        names = ("keep", "spatial", "temporal", "spatial_mask", "temporal_mask")
        return {}, {name: np.asarray(getattr(p, name)) for name in names}

    @classmethod
    def restore(
        cls,
        pool: Pool,
        card: Card,
        thresholds: tuple[float, float],
        data: Mapping[str, Any],
        arrays: Arrays,
        embedder: Embedder | None,
    ) -> Self:
        probabilities = EdgeProbabilities.of(
            *(arrays[n] for n in ("keep", "spatial", "temporal", "spatial_mask", "temporal_mask"))
        )
        return cls(pool, card, probabilities, node_threshold=thresholds[0], edge_threshold=thresholds[1])


_ANY = Item(id="any", question="")


def load(folder: Path | str, graph: AgentGraph, embedder: Embedder | None = None) -> Policy:
    """The policy in ``folder``, for ``graph``.

    Parameters
    ----------
    embedder:
        For policies that look at the question; ``None`` makes the one that it was learned with,
        where the package can.

    Raises
    ------
    ConfigError
        If there is no policy, one of a newer format or of an unknown kind, a damaged one, one that
        was learned for another graph, or one that needs another embedder.
    """
    folder = Path(folder)
    path = folder / POLICY
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no policy in {folder}: {POLICY} can't be read ({error.strerror}); name a folder that "
            f"`agentcomm prune --out` made"
        ) from error
    try:
        file = json.loads(raw)
        if not isinstance(file, dict) or file.get("format") != FORMAT:
            raise ValueError("it is not a policy of agentcomm")
    except ValueError as error:
        raise ConfigError(
            f"{path} can't be used: {error}; name a folder that `agentcomm prune --out` made"
        ) from error
    if file.get("version") not in range(1, VERSION + 1):
        raise ConfigError(
            f"{path} has format version {file.get('version')!r}; this agentcomm reads up to {VERSION}: "
            f"update it, or learn again"
        )
    try:
        stored = file["pool"]
        pool = Pool(graph, stored["edges"], stored["decision_scope"])
        _check_pool(pool, stored, path)
        kind = kind_of(file["kind"], f"{path} holds")
        arrays = _read_arrays(folder / WEIGHTS, file["arrays"])
        thresholds = float(file["thresholds"]["node"]), float(file["thresholds"]["edge"])
        return kind.restore(pool, Card.from_dict(file["card"]), thresholds, file["state"], arrays, embedder)
    except (KeyError, TypeError, ValueError, GraphError) as error:
        raise ConfigError(
            f"{path} is damaged or does not fit: {type(error).__name__}: {error}; learn it again"
        ) from error


def kind_of(name: str, where: str) -> type[Policy]:
    """The class of policies that a file calls ``name``; ``where`` begins the error.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in Policy.kinds and name in _HOMES:
        import_module(f"agentcomm.pruning.{_HOMES[name]}")
    if name not in Policy.kinds:
        raise ConfigError(f"{where} a policy of unknown kind {name!r}; update agentcomm")
    return Policy.kinds[name]


def _check_pool(pool: Pool, stored: Mapping[str, Any], path: Path) -> None:
    if pool.id == stored["id"]:
        return
    ours, theirs = list(pool.names), list(stored["agents"])
    differs = [f"without {name!r}" for name in theirs if name not in ours]
    differs += [f"with {name!r}" for name in ours if name not in theirs]
    if not differs and ours != theirs:
        differs = ["with its agents in another order"]
    if not differs and stored["decision"] != pool.decision:
        differs = [f"decided by {pool.decision!r} instead of {stored['decision']!r}"]
    if not differs and stored["rounds"] != pool.rounds:
        differs = [f"of {pool.rounds} rounds instead of {stored['rounds']}"]
    what = ", ".join(differs) or "with other roles, models or edges"
    raise ConfigError(
        f"the policy in {path.parent} was learned for another graph; this one is {what}. "
        f"Use the graph it was learned for, or learn again"
    )


def check_embedder(embedder: Embedder, expected: str) -> None:
    """Refuse an embedder whose vectors mean something else than those a policy was learned with."""
    if embedder.id != expected:
        raise ConfigError(
            f"the policy was learned with the embedding {expected!r}, not {embedder.id!r}; use that one, or "
            f"learn again"
        )


def embedder_for(expected: str, given: Embedder | None) -> Embedder:
    """``given``, or the embedder called ``expected`` where it can be made without being told where it is.

    Raises
    ------
    ConfigError
        If ``given`` is another one, or there is none and it can't be made.
    """
    embedder = given if given is not None else embedder_with_id(expected)
    if embedder is None:
        raise ConfigError(f"the policy was learned with the embedding {expected!r}; name it (embedder=)")
    check_embedder(embedder, expected)
    return embedder


def finite(value: float, what: str) -> float:
    """``value``, or a clear error where learning has run off to NaN or infinity."""
    if not math.isfinite(value):
        raise ConfigError(
            f"{what} is {value}: learning has diverged; lower the learning rate or change the seed"
        )
    return value


def _write_arrays(path: Path, arrays: Arrays) -> None:
    from safetensors.numpy import save

    half = path.with_name(path.name + ".part")
    half.write_bytes(save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))
    half.replace(path)


def _read_arrays(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}); learn the policy again") from error
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"{path} is no safetensors file ({error}); learn the policy again") from error
    if sorted(arrays) != sorted(names):
        raise ConfigError(
            f"{path} holds {sorted(arrays)}, not {sorted(names)}: the two files are of different policies; "
            f"learn it again"
        )
    return arrays
