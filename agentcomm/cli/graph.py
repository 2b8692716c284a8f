"""``agentcomm graph``: what a graph looks like and what a round of it would cost."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from agentcomm.cli import options as o


def graph(
    graph: o.GraphName,
    graph_option: o.GraphOption = None,
    cut: o.Cut = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print mermaid source.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the graph as JSON.")] = False,
) -> None:
    """Show GRAPH: who reads whom, in which waves, and the calls and messages of each round."""
    from rich.console import Console
    from rich.markup import escape

    from agentcomm.cli.tables import add, table
    from agentcomm.loading import load_graph

    team = load_graph(graph, o.key_values(graph_option, "--graph-option"))
    topology = o.topology(team, cut)
    if mermaid:
        typer.echo(team.mermaid(topology))
        return
    if json:
        data = team.to_dict()
        if topology is not None:
            data["topology"] = topology.to_dict()
        data["rounds_cost"] = round_costs(team, topology)
        typer.echo(json_module.dumps(data, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(
        f"{len(team.agents)} agents, {len(team.edges)} edges, {team.rounds} rounds, decided by [bold]{escape(team.decision)}[/]"
    )
    agents = table("agent", "reads (same round)", "reads (round before)", "view", "model", "role")
    for agent in team.agents:
        into = team.incoming[agent.name]
        add(
            agents,
            agent.name,
            ", ".join(e.sender for e in into if e.kind == "spatial"),
            ", ".join(e.sender for e in into if e.kind == "temporal"),
            agent.view or "",
            "function" if agent.act else agent.model or "",
            agent.role,
        )
    console.print(agents)
    rounds = table("round", "waves", right=("calls", "messages read", "of them again"))
    for row in round_costs(team, topology):
        add(
            rounds,
            str(row["round"]),
            " | ".join(", ".join(wave) for wave in row["waves"]),
            str(row["calls"]),
            str(row["messages"]),
            str(row["again"]),
        )
    console.print(rounds)
    costs = round_costs(team, topology)
    console.print(
        f"an item costs {sum(r['calls'] for r in costs)} model calls, in which "
        f"{sum(r['messages'] for r in costs)} messages are read"
    )


def round_costs(team: Any, topology: Any = None) -> list[dict[str, Any]]:
    """For each round: its waves, its model calls, and how many messages those calls read."""
    from agentcomm.schedule import Schedule

    schedule = Schedule.of(team, topology)
    rows: list[dict[str, Any]] = []
    read: dict[str, int] = {}
    for r in range(1, team.rounds + 1):
        waves = [list(w.agents) for w in schedule.waves if w.round == r]
        calls = messages = again = 0
        for name in (a for wave in waves for a in wave):
            fresh = len(schedule.sources(name, r))
            remembered = read.get(name, 0) if team.by_name[name].memory else 0
            read[name] = remembered + fresh
            if team.by_name[name].act is None:
                calls += 1
                messages += fresh + remembered
                again += remembered
        rows.append({"round": r, "waves": waves, "calls": calls, "messages": messages, "again": again})
    return rows
