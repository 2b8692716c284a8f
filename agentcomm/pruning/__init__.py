"""Which agents speak and who reads whom: probabilities, realised topologies, learners.

    fitting      a policy by the name of its method: ``fit(graph, task, method="agp", ...)``
    policy       what decides a topology for an item, and its file
    pool         the agents that may be pruned, in fixed order, and the pairs that may be edges
    realise      edge probabilities -> topology: thresholded or drawn, always acyclic
    environment  what a learner sees of the world: rollouts, outcomes, budgets
    planted      a world without a model whose best topology is known
    runner       a real team as an environment, in a directory that keeps what was paid for
    records      what was tried and what came of it, one JSON line each
    savings      what a policy leaves out, and what that took

Names load when they are first used. Nothing here imports torch; learners that need it say so in
their own file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentcomm.pruning.fitting import METHODS as METHODS
    from agentcomm.pruning.fitting import fit as fit
    from agentcomm.pruning.fitting import fit_async as fit_async
    from agentcomm.pruning.policy import Policy as Policy
    from agentcomm.pruning.policy import load as load
    from agentcomm.pruning.pool import Pool as Pool

_HOMES = {
    "METHODS": "fitting",
    "fit": "fitting",
    "fit_async": "fitting",
    "Policy": "policy",
    "load": "policy",
    "Pool": "pool",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentcomm.pruning' has no attribute {name!r}")
    value = getattr(import_module(f"agentcomm.pruning.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
