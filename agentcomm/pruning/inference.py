"""Inference: what a topology network decides, in numpy, so that using a policy needs no torch.

:class:`Architecture` says what a network is made of, :class:`Forward` computes its probabilities
from plain arrays (equal to :class:`agentcomm.pruning.network.TopologyNetwork` within 1e-5; within
1e-3 as released, where min-max magnifies rounding), :class:`NetworkPolicy` decides by them. What
depends on the roles alone is computed once; a decision for nine agents takes less than a
millisecond beside the query's embedding.

Deliberately absent: training, and torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentcomm.errors import ConfigError
from agentcomm.pruning.embeddings import Embedder, cached
from agentcomm.pruning.policy import Arrays, Card, Policy, embedder_for
from agentcomm.pruning.pool import BoolArray, FloatArray, Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.task import Item

Profile = Literal["corrected", "as_released"]
Head = Literal["directed", "symmetric"]
Layers = Literal["separate", "gcn"]

FLAT = 1e-5
"""Released edge scores whose range is below this share of the largest are equal but for rounding."""


@dataclass(frozen=True)
class Architecture:
    """What a topology network is made of.

    Parameters
    ----------
    agents, dimensions:
        N and the length d of embeddings.
    profile:
        ``"corrected"`` or ``"as_released"`` (see :mod:`agentcomm.pruning.network`).
    head, layers:
        ``"symmetric"`` and ``"gcn"`` are negative controls.
    temperature:
        tau, at least 1: p = sigmoid(logit / tau).
    hidden, edge, anchor:
        Widths of agents' vectors, of the edge head, of the anchors.
    """

    agents: int
    dimensions: int
    profile: Profile = "corrected"
    head: Head = "directed"
    layers: Layers = "separate"
    temperature: float = 1.0
    hidden: int = 64
    edge: int = 32
    anchor: int = 16

    def __post_init__(self) -> None:
        for name, words in (("profile", Profile), ("head", Head), ("layers", Layers)):
            if getattr(self, name) not in get_args(words):
                raise ConfigError(
                    f"a network with {name}={getattr(self, name)!r}; use one of {', '.join(get_args(words))}"
                )
        if self.temperature < 1 or min(self.agents, self.dimensions, self.hidden, self.edge, self.anchor) < 1:
            raise ConfigError(f"a network of {self}; sizes and the temperature must be at least 1")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def message_weights(architecture: Architecture, message_graph: ArrayLike | None = None) -> FloatArray:
    """[N, N], row reads: how an agent's vector is made of those it hears.

    The mean over in-neighbours; for convolutions D^-1/2 (A + I) D^-1/2 of Kipf and Welling 2017.

    Raises
    ------
    ConfigError
        For a message graph that isn't [N, N].
    """
    n = architecture.agents
    if message_graph is None:
        heard: BoolArray = ~np.eye(n, dtype=np.bool_)
    else:
        heard = np.array(message_graph, dtype=np.bool_).T.copy()
        if heard.shape != (n, n):
            raise ConfigError(f"a message graph of shape {heard.shape} for {n} agents; it must be [{n}, {n}]")
        np.fill_diagonal(heard, False)
    if architecture.profile == "as_released" or architecture.layers == "gcn":
        loops = heard.astype(np.float64) + np.eye(n)
        scale = 1.0 / np.sqrt(loops.sum(axis=1))
        return np.asarray(scale[:, None] * loops * scale, dtype=np.float64)
    return np.asarray(heard / np.maximum(heard.sum(axis=1, keepdims=True), 1), dtype=np.float64)


class Probabilities(NamedTuple):
    """q [N] and p [N, N]; the diagonal of p means nothing."""

    keep: FloatArray
    edge: FloatArray


class Forward:
    """A network's forward pass for one query at a time, from its weights and the roles' embeddings.

    Parameters
    ----------
    arrays:
        As :meth:`agentcomm.pruning.network.TopologyNetwork.arrays` gives them.
    roles:
        [N, d].

    Raises
    ------
    ConfigError
        If the weights or the roles are of another architecture, or contain NaN.
    """

    def __init__(
        self, architecture: Architecture, arrays: Mapping[str, NDArray[Any]], roles: ArrayLike
    ) -> None:
        self.architecture = a = architecture
        expected = shapes(a)
        found = {name: tuple(array.shape) for name, array in arrays.items()}
        if found != expected:
            wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ConfigError(
                f"weights that don't fit a network of {a.agents} agents and {a.dimensions} dimensions: "
                f"{', '.join(f'{k} is {found.get(k)}, not {expected.get(k)}' for k in wrong[:3])}"
            )
        w = self._w = {k: np.array(v, dtype=np.float64) for k, v in arrays.items()}
        if bad := [k for k, v in w.items() if not np.isfinite(v).all()]:
            raise ConfigError(f"weights {bad[0]} contain NaN or infinity; fit the policy again")
        role = np.asarray(roles, dtype=np.float64)
        if role.shape != (a.agents, a.dimensions):
            raise ConfigError(
                f"role embeddings of shape {role.shape} for a network of [{a.agents}, {a.dimensions}]; "
                f"embed with what the policy was fitted with"
            )
        d = a.dimensions
        # The first layer is linear in [role; query; anchor]: only the query's part changes.
        if a.profile == "as_released":
            first = w["convolution_1.weight"]
            self._of_role = w["weights"] @ (role @ first[:, :d].T) + w["convolution_1.bias"]
            self._of_query = first[:, d:].T[None] * w["weights"].sum(axis=1)[:, None, None]
            return
        fixed = np.hstack([role, w["anchors"]])

        def split(name: str) -> tuple[FloatArray, FloatArray]:
            weight = w[name]
            return fixed @ np.hstack([weight[:, :d], weight[:, 2 * d :]]).T, weight[:, d : 2 * d].T

        own, own_query = split("own_1.weight")
        share = w["weights"].sum(axis=1)[:, None]  # 1, or 0 for an agent that hears nobody
        if a.layers == "gcn":
            self._of_role = w["weights"] @ own + w["own_1.bias"]
            self._of_query = own_query[None] * share[:, :, None]
            return
        heard, heard_query = split("heard_1.weight")
        self._of_role = own + w["weights"] @ heard + w["own_1.bias"]
        self._of_query = own_query[None] + heard_query[None] * share[:, :, None]

    def __call__(self, query: ArrayLike) -> Probabilities:
        """q and p for a query's embedding [d]."""
        w, a = self._w, self.architecture
        x = np.asarray(query, dtype=np.float64)
        h = np.maximum(self._of_role + x @ self._of_query, 0.0)
        if a.profile == "as_released":
            return self._released(h)
        if a.layers == "gcn":
            z = (w["weights"] @ h) @ w["own_2.weight"].T + w["own_2.bias"]
        else:
            z = h @ w["own_2.weight"].T + w["weights"] @ (h @ w["heard_2.weight"].T) + w["own_2.bias"]
        u = z @ w["sender.weight"].T
        rank = z @ w["edge_sender.weight"].T
        if a.head == "symmetric":
            edge = u @ u.T / math.sqrt(a.edge) + rank + rank.T
        else:
            edge = u @ (z @ w["reader.weight"].T).T / math.sqrt(a.edge)
            edge += rank + (z @ w["edge_reader.weight"].T).T
        return Probabilities(self._keep(z), _sigmoid((edge + w["edge_reader.bias"]) / a.temperature))

    def _keep(self, z: FloatArray) -> FloatArray:
        w = self._w
        hidden = np.maximum(z @ w["node_1.weight"].T + w["node_1.bias"], 0.0)
        return _sigmoid((hidden @ w["node_2.weight"].T + w["node_2.bias"])[:, 0])

    def _released(self, h: FloatArray) -> Probabilities:
        w = self._w
        z = w["weights"] @ (h @ w["convolution_2.weight"].T) + w["convolution_2.bias"]
        z = z - z.max(axis=1, keepdims=True)
        z = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        e = np.maximum(z @ w["projection_1.weight"].T + w["projection_1.bias"], 0.0)
        e = e @ w["projection_2.weight"].T + w["projection_2.bias"]
        s = e @ e.T
        spread = s.max() - s.min()
        flat = spread <= FLAT * np.abs(s).max()
        scaled = np.zeros_like(s) if flat else 2.0 * (s - s.min()) / spread - 1.0
        return Probabilities(self._keep(h), _sigmoid(scaled / self.architecture.temperature))


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a network, by name."""
    a = architecture
    n, d, h = a.agents, a.dimensions, a.hidden
    found: dict[str, tuple[int, ...]] = {"weights": (n, n)}

    def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        found[f"{name}.weight"] = (outputs, inputs)
        if bias:
            found[f"{name}.bias"] = (outputs,)

    if a.profile == "as_released":
        for name, inputs, outputs in (
            ("convolution_1", 2 * d, 16),
            ("convolution_2", 16, 384),
            ("projection_1", 384, 16),
            ("projection_2", 16, 16),
            ("node_1", 16, 64),
            ("node_2", 64, 1),
        ):
            linear(name, inputs, outputs)
        return found
    found["anchors"] = (n, a.anchor)
    width = 2 * d + a.anchor
    linear("own_1", width, h)
    linear("heard_1", width, h, bias=False)
    linear("own_2", h, h)
    linear("heard_2", h, h, bias=False)
    linear("sender", h, a.edge, bias=False)
    linear("reader", h, a.edge, bias=False)
    linear("edge_sender", h, 1, bias=False)
    linear("edge_reader", h, 1)
    linear("node_1", h, h)
    linear("node_2", h, 1)
    return found


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


class NetworkPolicy(Policy):
    """A topology network and the embedder it was trained with.

    A pair has one logit, which its spatial and its temporal edge share; pairs that the pool doesn't
    have stay without. Everything is computed at 64 bits from the stored 32-bit weights, so two runs
    decide alike.

    Parameters
    ----------
    embedder:
        Of the roles' texts (once, here) and of each item's question.
    arrays:
        The network's weights by name.
    learn_nodes:
        ``False`` keeps every agent, for methods that learn edges alone.
    """

    kind = "network"

    def __init__(
        self,
        pool: Pool,
        card: Card,
        architecture: Architecture,
        arrays: Mapping[str, NDArray[Any]],
        embedder: Embedder,
        *,
        learn_nodes: bool = True,
        node_threshold: float = 0.5,
        edge_threshold: float = 0.5,
    ) -> None:
        super().__init__(pool, card, node_threshold=node_threshold, edge_threshold=edge_threshold)
        if (len(pool), embedder.dimensions) != (architecture.agents, architecture.dimensions):
            raise ConfigError(
                f"a network of {architecture.agents} agents and {architecture.dimensions} dimensions for "
                f"{len(pool)} agents and an embedding of {embedder.dimensions}"
            )
        self.architecture = architecture
        self.embedder = cached(embedder)
        self.learn_nodes = learn_nodes
        self._arrays = {k: np.asarray(v, dtype=np.float32) for k, v in arrays.items()}
        self._forward = Forward(
            architecture, self._arrays, self.embedder.embed([agent.role for agent in pool.agents])
        )
        self._everyone = np.ones(len(pool))

    def propose(self, item: Item) -> EdgeProbabilities:
        (query,) = self.embedder.embed([item.question])
        keep, edge = self.probabilities(query)
        return EdgeProbabilities.of(
            keep if self.learn_nodes else self._everyone,
            edge,
            edge,
            self.pool.spatial_allowed,
            self.pool.temporal_allowed,
        )

    def probabilities(self, query: ArrayLike) -> Probabilities:
        """q and p for a question's embedding [d]."""
        return self._forward(query)

    def untrained(self, items: Sequence[Item] = ()) -> dict[str, NetworkPolicy]:
        """Its control: this network with initial weights (:func:`agentcomm.pruning.untrained.untrained`).

        Raises
        ------
        ConfigError
            If torch, which draws the weights, is not installed.
        """
        try:
            from agentcomm.pruning.untrained import untrained
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed, which initial weights need: pip install 'agentcomm[learn]'"
            ) from error
        return untrained(self, items)

    def state(self) -> tuple[dict[str, Any], Arrays]:
        data = {
            "architecture": self.architecture.to_dict(),
            "embedding": self.embedder.id,
            "learn_nodes": self.learn_nodes,
        }
        return data, self._arrays

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
        architecture = Architecture(**data["architecture"])
        embedder = embedder_for(data["embedding"], embedder)
        return cls(
            pool,
            card,
            architecture,
            arrays,
            embedder,
            learn_nodes=bool(data["learn_nodes"]),
            node_threshold=thresholds[0],
            edge_threshold=thresholds[1],
        )
