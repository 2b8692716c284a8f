"""``run``: one graph, one question, one episode."""

from __future__ import annotations

from typing import Any

import anyio

from agentcomm.backends.base import Backend
from agentcomm.calls import Calls
from agentcomm.episode import Episode, Listener, Turns, run_episode
from agentcomm.errors import BackendError, ConfigError
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.limits import Scope
from agentcomm.ledger.store import Ledger
from agentcomm.message import content_id
from agentcomm.options import RunOptions, model_name
from agentcomm.schedule import Schedule
from agentcomm.task import Item, as_item


async def run(
    graph: AgentGraph,
    question: str | Item,
    model: str | Backend | None = None,
    *,
    topology: Topology | None = None,
    ledger: Ledger | None = None,
    listen: Listener | None = None,
    options: RunOptions | None = None,
    **overrides: Any,
) -> Episode:
    """Run a team on one question.

    Parameters
    ----------
    graph:
        The team.
    question:
        A string, or an :class:`Item` with context and views.
    model:
        A model string (``"local/smollm2"``, ``"openai/gpt-4o-mini"``, ``"vllm/FOLDER"``,
        ``"mock/echo"``) or a backend, which is yours to close; for agents without a model of
        their own.
    topology:
        What of the graph is alive; everything by default.
    ledger:
        Where calls are recorded; in memory by default.
    listen:
        Hears of every turn as it ends.
    options, overrides:
        A :class:`RunOptions`, or its fields as keywords (``temperature=0.7, base_url=...``).

    Returns
    -------
    Episode
        ``.answer``, ``.messages``, ``.failure``, ``.usage.by_edge()``, ``.usage.by_agent()``.

    Raises
    ------
    UserError
        If the graph, topology, item, model or an option can't be used as given. What fails while
        running (a server, an agent) is in ``Episode.failure`` instead.

    Examples
    --------
    >>> import agentcomm as ac
    >>> graph = ac.AgentGraph([ac.Agent("a"), ac.Agent("b")], [ac.Edge("a", "b")], decision="b")
    >>> episode = ac.run_sync(graph, "Say something.", model="mock/echo")
    >>> sorted(episode.usage.by_edge())
    ['a->b']
    """
    opts = RunOptions.of(options, **overrides)
    item = as_item(question)
    asked = model_name(model)
    schedule = Schedule.of(graph, topology)
    own = ledger is None
    book = ledger if ledger is not None else Ledger.in_memory()
    try:
        async with opts.calls(book, model) as calls:
            turns = open_turns(calls, schedule, item, opts, listen=listen)
            await check_models(calls, graph)
            # A checkpoint continues the same question to the same model, and no other.
            thread = content_id(item.id, item.content_hash, asked, opts.identity())
            return await run_episode(opts.make_executor(), turns, thread=thread)
    finally:
        if own:
            book.close()


def run_sync(
    graph: AgentGraph, question: str | Item, model: str | Backend | None = None, **options: Any
) -> Episode:
    """:func:`run` for code without an event loop."""

    async def call() -> Episode:
        return await run(graph, question, model, **options)

    return anyio.run(call)


def open_turns(calls: Calls, schedule: Schedule, item: Item, options: RunOptions, **more: Any) -> Turns:
    """The turns of an episode under a run's options: the item's and the agents' limits within the run's.

    ``more`` are further fields of :class:`~agentcomm.episode.Turns` (``sample``, ``phase``, ``listen``).
    """
    scope = Scope("item", options.item_limits, calls.scope)
    return Turns(calls, schedule, item, scope=scope, agent_limits=options.agent_limits, **more)


async def check_models(calls: Calls, graph: AgentGraph) -> None:
    """Ask every model of the graph, its channels' too, whether it is there, before anything is paid for.

    Raises
    ------
    UserError
        If a server can't be reached, a model isn't there or a key is missing.
    """
    asked = [a.model for a in graph.agents if a.act is None]
    asked += [model for e in graph.edges for model in getattr(e.channel, "models", ())]
    for model in dict.fromkeys(asked):
        await check(calls.backend(model))


async def check(backend: Backend) -> None:
    """Ask a backend whether its model is there, if it can tell.

    Raises
    ------
    UserError
        If it can't be reached or used.
    """
    ask = getattr(backend, "check", None)
    if ask is None:
        return
    try:
        await ask()
    except BackendError as error:
        raise ConfigError(str(error)) from error
