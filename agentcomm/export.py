"""Export: a team as a LangGraph graph for an application of the user's own.

The clock is :func:`agentcomm.executors.langgraph.export`; here it is joined to models, limits and
a ledger, exactly as :func:`agentcomm.run` joins them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from agentcomm.api import check_models, open_turns
from agentcomm.backends.base import Backend
from agentcomm.executors.langgraph import Team, export
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.store import Ledger
from agentcomm.ledger.usage import UsageReport
from agentcomm.options import RunOptions
from agentcomm.schedule import Schedule, TurnRecord
from agentcomm.task import Item


def to_langgraph(
    graph: AgentGraph,
    model: str | Backend | None = None,
    *,
    policy: Topology | Callable[[Item], Topology] | None = None,
    ledger: Ledger | None = None,
    name: str = "team",
    options: RunOptions | None = None,
    **overrides: Any,
) -> CompiledStateGraph[Any, None, Any, Any]:
    """A compiled LangGraph graph that asks the team a question.

    Its input is ``{"question": str}``, or ``{"item": {...}}`` with the fields of :class:`Item`;
    its output ``{"answer": str | None, "messages": [...], "usage": {...}, "failure": {...} | None}``.
    ``invoke``, ``ainvoke`` and ``astream`` it, or add it as a node to a graph of yours whose state
    has these keys; ``stream_mode="custom"`` yields every turn as it ends. Below a checkpointer of
    yours (an asynchronous one), turns that were checkpointed are not paid for again on resume.

    Parameters
    ----------
    graph, model, options, overrides:
        As in :func:`agentcomm.run`. ``executor`` and ``checkpoint`` don't apply: LangGraph is the
        executor, and the checkpointer is that of the surrounding graph.
    policy:
        Which agents and edges are alive: a topology, or a function from the item to one.
    ledger:
        Where calls are recorded; by default in memory for one invocation, after which only
        ``usage`` is left.
    name:
        The compiled graph's name.

    Raises
    ------
    UserError
        When it is made, for a topology that doesn't fit the graph or an unknown option; when it
        is invoked, for a model or question that can't be used.

    Notes
    -----
    ``usage`` is :meth:`UsageReport.to_dict` of what this process paid: every attempt, failed ones too. A model server that
    agentcomm starts itself (``vllm/...``) lives for one invocation; give a ``base_url`` instead.
    """
    opts = RunOptions.of(options, **overrides)
    fixed = None if callable(policy) else Schedule.of(graph, policy)

    @asynccontextmanager
    async def open_team(item: Item) -> AsyncIterator[Team]:
        schedule = fixed or Schedule.of(graph, policy(item) if callable(policy) else policy)
        book = ledger if ledger is not None else Ledger.in_memory()
        try:
            async with opts.calls(book, model) as calls:
                await check_models(calls, graph)
                turns = open_turns(calls, schedule, item, opts)

                def usage(_: Sequence[TurnRecord]) -> dict[str, Any]:
                    return UsageReport.of(turns.rows, turns.deliveries).to_dict()

                yield Team(schedule, turns.act, usage)
        finally:
            if ledger is None:
                book.close()

    return export(open_team, name=name)
