"""agentcomm: see what every message between LLM agents costs and is worth, and cut what isn't.

    import agentcomm as ac

Names load when they are first used, so ``import agentcomm`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agentcomm import backends as backends
    from agentcomm import channels as channels
    from agentcomm import information as information
    from agentcomm import pruning as pruning
    from agentcomm import topologies as topologies
    from agentcomm.api import run as run
    from agentcomm.api import run_sync as run_sync
    from agentcomm.episode import Episode as Episode
    from agentcomm.errors import AgentCommError as AgentCommError
    from agentcomm.errors import RunError as RunError
    from agentcomm.errors import UserError as UserError
    from agentcomm.evaluation.run import evaluate as evaluate
    from agentcomm.export import to_langgraph as to_langgraph
    from agentcomm.graph import Agent as Agent
    from agentcomm.graph import AgentGraph as AgentGraph
    from agentcomm.graph import Edge as Edge
    from agentcomm.graph import Mask as Mask
    from agentcomm.graph import Topology as Topology
    from agentcomm.ledger.limits import Limits as Limits
    from agentcomm.ledger.store import Ledger as Ledger
    from agentcomm.message import Delivery as Delivery
    from agentcomm.message import EdgeKey as EdgeKey
    from agentcomm.message import Failure as Failure
    from agentcomm.message import Message as Message
    from agentcomm.message import Usage as Usage
    from agentcomm.prompting import Turn as Turn
    from agentcomm.task import Item as Item
    from agentcomm.task import Score as Score
    from agentcomm.task import Task as Task

_HOMES = {
    "run": "api",
    "run_sync": "api",
    "Episode": "episode",
    "AgentCommError": "errors",
    "RunError": "errors",
    "UserError": "errors",
    "evaluate": "evaluation.run",
    "to_langgraph": "export",
    "Agent": "graph",
    "AgentGraph": "graph",
    "Edge": "graph",
    "Mask": "graph",
    "Topology": "graph",
    "Limits": "ledger.limits",
    "Ledger": "ledger.store",
    "Delivery": "message",
    "EdgeKey": "message",
    "Failure": "message",
    "Message": "message",
    "Usage": "message",
    "Turn": "prompting",
    "Item": "task",
    "Score": "task",
    "Task": "task",
}
_ROOMS = ("backends", "channels", "information", "pruning", "topologies")

__all__ = [*_HOMES, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"agentcomm.{_HOMES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"agentcomm.{name}")
    else:
        raise AttributeError(f"module 'agentcomm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
