"""``agentcomm graph``: what a graph looks like and what a round of it would cost."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from agentcomm.graph import Agent, AgentGraph


def graph(
    graph: o.GraphName,
    graph_option: o.GraphOption = None,
    cut: o.Cut = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print mermaid source.")] = False,
    message_tokens: Annotated[
        int, typer.Option("--message-tokens", help="Assumed length of a message.")
    ] = 100,
    task_tokens: Annotated[int, typer.Option("--task-tokens", help="Assumed length of the question.")] = 100,
    json: Annotated[bool, typer.Option("--json", help="Print the graph as JSON.")] = False,
) -> None:
    """Show GRAPH: who reads whom, in which waves, and what each round would cost."""
    from rich.console import Console
    from rich.markup import escape

    from agentcomm.cli.tables import add, table
    from agentcomm.forecast import forecast
    from agentcomm.loading import load_graph

    team = load_graph(graph, o.key_values(graph_option, "--graph-option"))
    topology = o.topology(team, cut)
    if mermaid:
        typer.echo(team.mermaid(topology))
        return
    costs = forecast(team, topology, message_tokens=message_tokens, task_tokens=task_tokens)
    if json:
        data = team.to_dict()
        if topology is not None:
            data["topology"] = topology.to_dict()
        data["rounds_cost"] = [row.to_dict() for row in costs]
        typer.echo(json_module.dumps(data, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(
        f"{len(team.agents)} agents, {len(team.edges)} edges, {team.rounds} round{'s' * (team.rounds > 1)}, decided by [bold]{escape(team.decision)}[/]"
    )
    agents = table("agent", "reads", "role")
    for agent in team.agents:
        add(agents, _title(agent), _reads(team, agent), agent.role)
    console.print(agents)
    by_channels = ("by channels",) if any(row.channel_calls for row in costs) else ()
    rounds = table("round", "waves", right=("calls", *by_channels, "messages", "of them again", "input ≈"))
    for row in costs:
        waves = " | ".join(", ".join(wave) for wave in row.waves)
        channel_calls = (row.channel_calls,) if by_channels else ()
        numbers = (row.calls, *channel_calls, row.messages, row.again, row.input_tokens)
        add(rounds, str(row.round), waves, *(f"{n:,}" for n in numbers))
    console.print(rounds)
    console.print(
        f"an item costs {sum(r.calls for r in costs):,} model calls, in which {sum(r.messages for r in costs):,} "
        f"messages are read; about {sum(r.input_tokens for r in costs):,} input tokens if a message has "
        f"{message_tokens} and the question {task_tokens}"
    )


def _title(agent: Agent) -> str:
    """Its name, and what sets it apart: a view, a model of its own, being a function."""
    marks = [f"view {agent.view}"] * (agent.view is not None) + [agent.model or ""] * (
        agent.model is not None
    )
    marks += ["function"] * (agent.act is not None)
    return agent.name + (f" ({', '.join(marks)})" if marks else "")


def _reads(team: AgentGraph, agent: Agent) -> str:
    into = team.incoming[agent.name]
    now = [e.sender for e in into if e.kind == "spatial"]
    before = [f"{e.sender} (round before)" for e in into if e.kind == "temporal"]
    return ", ".join([*now, *before])
