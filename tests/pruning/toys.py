"""Environments whose utility is a function of the topology, for learners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agentcomm.graph import Agent, AgentGraph, Topology
from agentcomm.message import Usage
from agentcomm.pruning.environment import Outcome
from agentcomm.pruning.pool import Arrays, EdgeChoice, Pool
from agentcomm.task import Item

Worth = Callable[[Item, Arrays], float | None]
"""What a topology is worth on an item; ``None`` fails."""


@dataclass
class Toy:
    """Rollouts that are worth what a function says; remembers all of them."""

    pool: Pool
    worth: Worth
    seen: list[tuple[str, Topology, int]] = field(default_factory=list)

    async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
        self.seen.append((item.id, topology, seed))
        u = self.worth(item, self.pool.arrays(topology))
        if u is None:
            return Outcome(None, None, Usage(10, 1), status="failed", failure="toy failure")
        return Outcome(float(u > 0.5), u, Usage(10, 1))


def toy_pool(n: int, edges: EdgeChoice = "complete", rounds: int = 1, *, memory: bool = True) -> Pool:
    """``n`` agents and a judge; as a graph pool with the complete DAG."""
    agents = [Agent(f"a{i}", role=f"Role number {i}.", memory=memory) for i in range(n)]
    pairs = [(f"a{i}", f"a{j}") for i in range(n) for j in range(i + 1, n)] if edges == "graph" else []
    to_judge = [(a.name, "judge") for a in agents]
    graph = AgentGraph([*agents, Agent("judge", role="You decide.")], [*pairs, *to_judge], "judge", rounds)
    return Pool(graph, edges)


def toy_items(count: int, split: str = "learn") -> tuple[Item, ...]:
    """Items that differ by a number."""
    return tuple(
        Item(f"{split}{k}", f"Question {k}?", metadata={"split": split, "k": k}) for k in range(count)
    )
