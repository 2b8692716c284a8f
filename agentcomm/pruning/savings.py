"""Savings: what a policy leaves out of the whole team, and what each agent and edge took.

Both are run on the same items and told apart call by call: an agent's tokens are those of its own
calls, an edge's those that its reader paid for it (they are part of the reader's). How often an
agent or edge is alive is asked of the policy alone, on items that it has not learned from where
there are any: that costs nothing.

Deliberately absent: whether the answers stay as good, which is for an evaluation on other items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.usage import is_edge
from agentcomm.message import EdgeKey
from agentcomm.pruning.batches import mean_known
from agentcomm.pruning.policy import Policy
from agentcomm.pruning.runner import RealEnvironment, whole_team
from agentcomm.task import Item

ASKED = 500
"""Items at most on which a policy is asked whom it keeps."""


@dataclass(frozen=True)
class Saving:
    """One agent, or one edge as ``"sender->reader"``; tokens are means an item, ``None`` if unknown.

    ``kept`` is the share of items on which it is alive; ``there`` whether the user's graph has it.
    """

    name: str
    kept: float
    before: float | None
    after: float | None
    there: bool = True

    @property
    def saved(self) -> float | None:
        """Tokens an item; negative where more are used."""
        return None if self.before is None or self.after is None else self.before - self.after


@dataclass(frozen=True)
class Savings:
    """What pruning saves.

    Parameters
    ----------
    agents, edges:
        In the graph's order; edges that the policy added last.
    before, after:
        Mean tokens an item of the whole team and of the policy's, on ``measured`` learn items.
    score_before, score_after:
        Mean scores there. The policy has learned from these items: they promise nothing.
    measured, asked:
        Items behind the tokens, and behind ``kept``.
    asked_on:
        Their split.
    learning:
        Tokens that learning has paid.
    """

    agents: tuple[Saving, ...]
    edges: tuple[Saving, ...]
    before: float | None
    after: float | None
    score_before: float | None
    score_after: float | None
    measured: int
    asked: int
    asked_on: str
    learning: int

    @property
    def break_even(self) -> float | None:
        """After so many items learning is paid back; ``None`` if never, or unknown."""
        if self.before is None or self.after is None or self.before <= self.after:
            return None
        return self.learning / (self.before - self.after)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""

        def row(s: Saving) -> dict[str, Any]:
            return {"name": s.name, "kept": s.kept, "before": s.before, "after": s.after, "saved": s.saved}

        return {
            "agents": [row(s) for s in self.agents],
            "edges": [{**row(s), "in_graph": s.there} for s in self.edges],
            "tokens_before": self.before,
            "tokens_after": self.after,
            "score_before": self.score_before,
            "score_after": self.score_after,
            "measured_on": self.measured,
            "kept_on": {"split": self.asked_on, "items": self.asked},
            "learning_tokens": self.learning,
            "break_even_items": self.break_even,
        }


async def measure(
    environment: RealEnvironment, policy: Policy, items: Sequence[Item], asked: Sequence[Item]
) -> Savings:
    """Run the policy's team on ``items``, and ask it about ``asked``.

    Parameters
    ----------
    environment:
        Which has measured the whole team.
    items:
        The learn items that it was measured on.

    Raises
    ------
    As :meth:`RealEnvironment.rollout`.
    """
    pool = environment.pool
    whole = whole_team(pool)
    items = [item for item in items if item.id in environment.whole]
    before = [environment.whole[item.id] for item in items]
    after = await environment.run_all(items, policy)
    both = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a.status == b.status == "ok"]
    asked = asked[:ASKED] or items
    agents: Counter[str] = Counter()
    edges: Counter[EdgeKey] = Counter()
    for item in asked:
        masks = policy(item).masks
        agents.update(frozenset[str]().union(*(m.agents for m in masks)))
        edges.update(frozenset[EdgeKey]().union(*(m.edges for m in masks)))
    took = _Took([environment.calls_of(items[k], whole) for k in both])
    takes = _Took([environment.calls_of(items[k], policy(items[k])) for k in both])
    graph = pool.graph
    known = dict.fromkeys(graph.by_key, True) | {k: False for k in edges if k not in graph.by_key}
    known |= {k: False for m in whole.masks for k in m.edges if k not in known}
    pairs: dict[str, list[EdgeKey]] = {}
    for key in known:
        pairs.setdefault(str(key), []).append(key)  # spatial and temporal edges of a pair are one
    return Savings(
        agents=tuple(
            Saving(name, agents[name] / len(asked), took.of_agent(name), takes.of_agent(name))
            for name in graph.names
            if name != graph.decision
        ),
        edges=tuple(
            Saving(
                name,
                max(edges[k] for k in keys) / len(asked),
                took.of_edge(name),
                takes.of_edge(name),
                any(known[k] for k in keys),
            )
            for name, keys in pairs.items()
        ),
        before=mean_known([before[k].total_tokens for k in both]),
        after=mean_known([after[k].total_tokens for k in both]),
        score_before=mean_known([before[k].correct for k in both]),
        score_after=mean_known([after[k].correct for k in both]),
        measured=len(both),
        asked=len(asked),
        asked_on=str(asked[0].metadata.get("split", "learn")),
        learning=environment.spent.tokens,
    )


class _Took:
    """Tokens an item by agent and by edge; unknown where some rollout's calls are not in the ledger."""

    def __init__(self, rollouts: Sequence[Sequence[CallRow]]) -> None:
        rows = [row for calls in rollouts for row in calls]
        self.unknown = not rollouts or not all(rollouts) or any(r.input_tokens is None for r in rows)
        self.count = len(rollouts)
        self._agents: Counter[str] = Counter()
        self._edges: Counter[str] = Counter()
        for row in rows:
            used = (row.input_tokens or 0) + (row.output_tokens or 0)
            self._agents[row.agent] += used
            if row.edge is not None:  # a channel's own call
                self._edges[row.edge] += used
            parts: Mapping[str, int] = row.parts or {}
            for part, tokens in parts.items():
                if row.edge is None and is_edge(part):
                    self._edges[part] += tokens

    def of_agent(self, name: str) -> float | None:
        return None if self.unknown else self._agents[name] / self.count

    def of_edge(self, name: str) -> float | None:
        return None if self.unknown else self._edges[name] / self.count
