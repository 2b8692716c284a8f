"""``agentcomm run``: one question, the conversation as it happens, tokens on each edge."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o
from agentcomm.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.episode import Episode, Spoke
    from agentcomm.task import Item


def run(
    graph: o.GraphName,
    question: Annotated[str | None, typer.Argument(help="What to ask; or give --task and --item.")] = None,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    task: Annotated[str | None, typer.Option("--task", help="Take the question from a task instead.")] = None,
    item: Annotated[int, typer.Option("--item", help="Which item of the task, counted from 1.")] = 1,
    data: o.Data = None,
    cut: o.Cut = None,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = 0.0,
    max_tokens: o.MaxTokens = 1024,
    item_limit: o.ItemLimit = None,
    agent_limit: o.AgentLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    executor: o.Executor = "langgraph",
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Ask GRAPH one QUESTION and show who says what to whom, and what each message cost."""
    import anyio
    from rich.console import Console

    from agentcomm.api import run as run_graph
    from agentcomm.loading import load_graph, load_task

    options = o.run_options(
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        api_key_env=api_key_env,
        timeout_s=timeout,
        max_concurrency=concurrency,
        executor=executor,
        cache=cache,
        prices=prices,
        retries=retries,
        run_limit=None,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    team = load_graph(graph, o.key_values(graph_option, "--graph-option"))
    asked: str | Item
    if task is not None:
        if question is not None:
            raise ConfigError("give a question or --task, not both")
        items = load_task(
            task, o.task_options(task_option, data=data, limit=None, split=None, seed=None)
        ).items
        if not 1 <= item <= len(items):
            raise ConfigError(f"--item {item}: the task has items 1 to {len(items)}")
        asked = items[item - 1]
    elif question is not None:
        asked = question
    else:
        raise ConfigError('nothing to ask: give a question, e.g. agentcomm run single "What is 6 times 7?"')
    console = Console(highlight=False)

    async def go() -> Episode:
        return await run_graph(
            team,
            asked,
            model,
            topology=o.topology(team, cut),
            listen=None if json else lambda spoke: _show(console, spoke),
            options=options,
        )

    episode = anyio.run(go)
    if json:
        typer.echo(json_module.dumps(as_dict(episode), ensure_ascii=False))
    else:
        _end(console, episode)
    if not episode.ok:
        assert episode.failure is not None
        why = " ".join(episode.failure.reason.split())[:600]
        sys.stderr.write(f"failed: {episode.failure.sender}: {episode.failure.kind}: {why}\n")
        raise typer.Exit(1)


def as_dict(episode: Episode) -> dict[str, Any]:
    """An episode as JSON: answer, failure, turns and usage."""
    return {
        "question": episode.item.question,
        "answer": episode.answer,
        "failure": episode.failure.reason if episode.failure else None,
        "turns": [
            {
                "round": r.round,
                "agent": r.agent,
                "reads": [d.edge.sender for d in r.inbox],
                "text": getattr(r.outcome, "text", None),
                "failure": getattr(r.outcome, "reason", None),
            }
            for r in episode.records
        ],
        "usage": episode.usage.to_dict(),
        "wall_s": round(episode.wall_s, 3),
    }


def _show(console: Console, spoke: Spoke) -> None:
    from rich.markup import escape

    from agentcomm.message import Message

    record = spoke.record
    console.print(f"[bold cyan]{escape(record.agent)}[/] [dim]round {record.round}[/]")
    for row in spoke.deliveries:
        again = ", again" if row.again else ""
        tokens = "? tokens" if row.tokens is None else f"{row.tokens:,} tokens"
        console.print(f"  [dim]reads[/] {escape(row.sender)}->{escape(row.reader)} [dim]{tokens}{again}[/]")
    for call in spoke.calls:
        paid = "from the cache" if call.cache_hit else "paid"
        console.print(f"  [dim]{paid} {_tokens(call.input_tokens)} in, {_tokens(call.output_tokens)} out[/]")
    if isinstance(record.outcome, Message):
        console.print(f"  {escape(record.outcome.text.strip() or '(says nothing)')}")
    else:
        console.print(f"  [red]failed: {escape(record.outcome.reason)}[/]")


def _tokens(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _end(console: Console, episode: Episode) -> None:
    from rich.markup import escape

    from agentcomm.cli.tables import number, share_table

    usage = episode.usage
    console.print()
    if episode.answer is not None:
        console.print(f"[bold]answer:[/] {escape(episode.answer.strip())}")
    console.print(
        f"{number(usage.input_tokens)} input and {number(usage.output_tokens)} output tokens in {usage.calls} calls, "
        f"{episode.wall_s:.1f} s"
    )
    if usage.by_edge():
        console.print(
            share_table("edge", "input tokens its reader paid", usage.by_edge(), usage.input_tokens)
        )
