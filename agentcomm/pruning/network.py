"""Network: from role and query embeddings to keep and edge logits, in torch.

Two profiles (``pruning.md`` sections 3.2 and 3.3):

* ``"corrected"``: an agent's features are its role's embedding, the query's, and a learned anchor
  that tells equal roles apart; two layers with separate weights for an agent itself and the mean
  of its in-neighbours; a *directed* edge head; a node head. Every parameter is trained.
* ``"as_released"``: the published code's network, for comparison only: graph convolutions, the
  symmetric edge score E E^T, min-max to [-1, 1] (so no p leaves [0.269, 0.731]), and a projection
  that its optimiser never saw.

``head="symmetric"`` and ``layers="gcn"`` rebuild one defect each, for negative controls. On a
complete graph a convolution with self-loops gives every agent the same vector: that is the
defect, not a mistake here.

What a policy needs at inference, :mod:`agentcomm.pruning.inference` computes without torch; both
agree. Deliberately absent: losses and training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from agentcomm.errors import ConfigError
from agentcomm.pruning.inference import FLAT, Architecture, NetworkPolicy, message_weights

__all__ = ["Architecture", "Logits", "NetworkPolicy", "TopologyNetwork"]


class Logits(NamedTuple):
    """What the network says: ``node`` [B, N] and ``edge`` [B, N, N], row sends, column receives.

    q = sigmoid(node) and p = sigmoid(edge); the temperature is in ``edge`` already, and its
    diagonal means nothing.
    """

    node: Tensor
    edge: Tensor


class TopologyNetwork(nn.Module):
    """Keep and edge logits of N agents for a batch of queries.

    Parameters
    ----------
    architecture:
        Sizes and profile; 117,122 + 16 N parameters as "corrected" at 384 dimensions.
    seed:
        Of the initial weights. torch's global generator is neither used nor moved.
    message_graph:
        [N, N], whom each agent hears inside the network (row sends, column receives): a prior
        over roles; every ordered pair by default.

    Raises
    ------
    ConfigError
        For a message graph of another size.
    """

    weights: Tensor

    def __init__(
        self, architecture: Architecture, seed: int = 0, message_graph: ArrayLike | None = None
    ) -> None:
        super().__init__()
        a = self.architecture = architecture
        rng = torch.Generator().manual_seed(seed)
        weights = message_weights(a, message_graph)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        if a.profile == "as_released":
            self.convolution_1 = _linear(2 * a.dimensions, 16, rng)
            self.convolution_2 = _linear(16, 384, rng)
            self.projection_1 = _linear(384, 16, rng)
            self.projection_2 = _linear(16, 16, rng)
            self.node_1 = _linear(16, 64, rng)
            self.node_2 = _linear(64, 1, rng)
            self._freeze()
            return
        h = a.hidden
        width = 2 * a.dimensions + a.anchor
        self.anchors = nn.Parameter(torch.empty(a.agents, a.anchor).normal_(0, 0.25, generator=rng))
        self.own_1 = _linear(width, h, rng)
        self.heard_1 = _linear(width, h, rng, bias=False)
        self.own_2 = _linear(h, h, rng)
        self.heard_2 = _linear(h, h, rng, bias=False)
        self.sender = _linear(h, a.edge, rng, bias=False)
        self.reader = _linear(h, a.edge, rng, bias=False)
        self.edge_sender = _linear(h, 1, rng, bias=False)
        self.edge_reader = _linear(h, 1, rng)
        self.node_1 = _linear(h, h, rng)
        self.node_2 = _linear(h, 1, rng)
        self._freeze()

    def forward(self, roles: Tensor, queries: Tensor) -> Logits:
        """Logits for role embeddings [N, d] and query embeddings [B, d]."""
        if self.architecture.profile == "as_released":
            return self._released(roles, queries)
        z = self.vectors(roles, queries)
        node = self.node_2(torch.relu(self.node_1(z))).squeeze(-1)
        if self.architecture.head == "symmetric":
            u = self.sender(z)
            rank = self.edge_sender(z)
            pair = u @ u.transpose(1, 2) / math.sqrt(u.shape[-1])
            edge = pair + rank + rank.transpose(1, 2) + self.edge_reader.bias
        else:
            u, v = self.sender(z), self.reader(z)
            pair = u @ v.transpose(1, 2) / math.sqrt(u.shape[-1])
            edge = pair + self.edge_sender(z) + self.edge_reader(z).transpose(1, 2)
        return Logits(node, edge / self.architecture.temperature)

    def vectors(self, roles: Tensor, queries: Tensor) -> Tensor:
        """Z [B, N, 64]: what both heads read. "corrected" only."""
        batch, n = len(queries), len(roles)
        x = torch.cat(
            [
                roles.expand(batch, -1, -1),
                queries[:, None, :].expand(-1, n, -1),
                self.anchors.expand(batch, -1, -1),
            ],
            dim=-1,
        )
        if self.architecture.layers == "gcn":
            # One weight for an agent and those it hears, as a convolution has it.
            h = torch.relu(self.own_1(self.weights @ x))
            return self.own_2(self.weights @ h)  # type: ignore[no-any-return]
        h = torch.relu(self.own_1(x) + self.weights @ self.heard_1(x))
        return self.own_2(h) + self.weights @ self.heard_2(h)  # type: ignore[no-any-return]

    def _released(self, roles: Tensor, queries: Tensor) -> Logits:
        batch, n = len(queries), len(roles)
        x = torch.cat([roles.expand(batch, -1, -1), queries[:, None, :].expand(-1, n, -1)], dim=-1)
        h = torch.relu(
            self.weights @ functional.linear(x, self.convolution_1.weight) + self.convolution_1.bias
        )
        z = self.weights @ functional.linear(h, self.convolution_2.weight) + self.convolution_2.bias
        e = self.projection_2(torch.relu(self.projection_1(torch.log_softmax(z, dim=-1))))
        s = e @ e.transpose(1, 2)
        low, high = s.amin(dim=(1, 2), keepdim=True), s.amax(dim=(1, 2), keepdim=True)
        # Equal vectors (a complete graph) leave only rounding noise to scale: every p is 0.5 then.
        flat = high - low <= FLAT * s.abs().amax(dim=(1, 2), keepdim=True)
        scaled = torch.where(flat, 0.0, 2.0 * (s - low) / torch.where(flat, 1.0, high - low) - 1.0)
        node = self.node_2(torch.relu(self.node_1(h))).squeeze(-1)
        return Logits(node, scaled / self.architecture.temperature)

    def trained(self) -> Iterator[nn.Parameter]:
        """What an optimiser gets: everything, but as released not the projection, and in a control
        only what its forward pass uses."""
        return (p for p in self.parameters() if p.requires_grad)

    def _freeze(self) -> None:
        unused: tuple[str, ...] = ()
        if self.architecture.profile == "as_released":
            unused = ("projection",)
        if self.architecture.layers == "gcn":
            unused += ("heard",)
        if self.architecture.head == "symmetric":
            unused += ("reader", "edge_reader.weight")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not (unused and name.startswith(unused)))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All weights by name, for :mod:`agentcomm.pruning.inference` and for files."""
        return {k: v.detach().numpy().copy() for k, v in self.state_dict().items()}

    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """The reverse of :meth:`arrays`.

        Raises
        ------
        ConfigError
            If they are of another architecture.
        """
        try:
            self.load_state_dict({k: torch.tensor(np.asarray(v)) for k, v in arrays.items()})
        except RuntimeError as error:
            raise ConfigError(f"weights of another network: {error}") from error


def _linear(inputs: int, outputs: int, rng: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer, weights and bias uniform within 1/sqrt(inputs), drawn from ``rng`` alone."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=rng)
    return layer
