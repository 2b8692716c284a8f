"""``agentcomm tune``: which message format works for a team, without training anything."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcomm.cli import options as o


def tune(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    search: Annotated[
        str, typer.Option("--search", help="formats: the shipped pool, or some of it: json,telegraphic,...")
    ] = "formats",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the dialogues and result.json; the same command continues."),
    ] = None,
    rungs: Annotated[
        str, typer.Option("--rungs", help="Items of each round; the better half of the formats goes on.")
    ] = "8,16,32",
    calibrate: Annotated[int, typer.Option("--calibrate", help="Items that set what a token costs.")] = 30,
    accept: Annotated[
        int, typer.Option("--accept", help="validate items on which the winner meets natural language.")
    ] = 32,
    token_weight: Annotated[
        float, typer.Option("--token-weight", help="Points of score for the tokens of a long dialogue.")
    ] = 0.6,
    count: Annotated[
        str, typer.Option("--count", help="Which tokens: message, completion, total (prompts too).")
    ] = "message",
    min_tokens: Annotated[
        int, typer.Option("--min-tokens", help="A dialogue of so few tokens counts as too short.")
    ] = 8,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    data: o.Data = None,
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
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Find the terse way of writing that GRAPH can work with on TASK, or keep natural language.

    GRAPH is a file or shipped graph with the option ``instruction``, such as information_exchange.
    Formats play the same learn items, the better half goes on; the winner then meets natural
    language on validate items, and is used only if its reward is surely higher and its score not
    lower. All tokens count, and the result says after how many items they are paid back.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.dialogue import formats
    from agentcomm.dialogue.play import Team
    from agentcomm.dialogue.reward import RewardConfig
    from agentcomm.dialogue.search import FormatSearch, SearchPlan, SearchResult
    from agentcomm.errors import ConfigError, GraphError
    from agentcomm.evaluation.held import held
    from agentcomm.evaluation.rundir import plain, write_json
    from agentcomm.graph import AgentGraph
    from agentcomm.loading import load_graph, load_task

    options = o.run_options(
        seed=seed,
        temperature=temperature,
        max_tokens=max_tokens,
        base_url=base_url,
        api_key_env=api_key_env,
        timeout_s=timeout,
        max_concurrency=concurrency,
        executor="plain",
        cache=cache,
        retries=retries,
        prices=prices,
        checkpoint=None,
        run_limit=None,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    try:
        sizes = tuple(int(n) for n in rungs.split(","))
    except ValueError:
        raise ConfigError(f"--rungs {rungs!r}; write numbers, as in 8,16,32") from None
    plan = SearchPlan(calibrate=calibrate, rungs=sizes, accept=accept)
    ids = formats.BANDIT if search == "formats" else [w.strip() for w in search.split(",") if w.strip()]
    pool = formats.pool(ids)
    given = o.key_values(graph_option, "--graph-option")
    if "instruction" in given:
        raise ConfigError("-G instruction=... is what the search is about; leave it out")

    def graph_of(instruction: str) -> AgentGraph:
        try:
            return load_graph(graph, {**given, "instruction": instruction})
        except GraphError as error:
            raise ConfigError(
                f"{error} (a search over formats needs a graph that takes the option instruction, such as "
                f"information_exchange or debate_pair)"
            ) from error

    def items(split: str, limit: int) -> Any:
        return load_task(task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None))

    learn, validate = items("learn", plan.learn_items), items("validate", plan.accept)
    folder = out or Path("formats") / f"{Path(task).stem}-{Path(graph).stem}"
    with Live(f"{Path(graph).stem} on {learn.name}", show=not json) as progress:
        shown = ""

        def on_progress(name: str, state: Any) -> None:
            nonlocal shown
            if name != shown:
                shown = name
                progress.begin(name)
            progress(state)

        team = Team(
            graph_of,
            learn,
            learn.items,
            validate.items,
            model,
            folder,
            options,
            None if json else on_progress,
        )
        config = RewardConfig(
            token_weight=token_weight,
            loss_weight=0.0,
            count=count,  # type: ignore[arg-type]
            min_tokens=min_tokens,
        )

        async def go() -> SearchResult:
            async with held(model, options):
                return await FormatSearch(pool, plan, config, seed).run(team)

        result = anyio.run(go)
    paid = sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in team.paid if not c.cache_hit)
    report = plain({**result.to_dict(), "paid_tokens": paid, "reward": config.to_dict()})
    report["difference"] = plain({"reward": result.to_dict()["reward"], "task": result.to_dict()["task"]})
    write_json(folder / "result.json", report)
    if json:
        typer.echo(json_module.dumps(report))
        return
    _show(result, pool, paid, folder)


def _show(result: Any, pool: Any, paid: int, folder: Path) -> None:
    from rich.console import Console

    from agentcomm.cli.tables import add, number, table

    console = Console()
    rows = table("round", "format", right=("items", "failed", "score", "tokens", "all", "reward"))
    last = max(s.rung for s in result.standings)
    for s in result.standings:
        name = f"{s.format} *" if s.kept else s.format
        add(
            rows,
            "final" if s.rung == last else str(s.rung),
            name,
            str(s.items),
            str(s.failed),
            number(s.task, 2),
            number(s.tokens),
            number(s.total_tokens),
            number(s.reward, 3),
        )
    console.print(rows)
    r, t = result.reward, result.task

    def difference(d: Any) -> str:
        if d.low is None:
            return f"{d.mean:+.3f}"
        return f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"

    console.print(
        f"{result.verdict}. On {r.items} validate items, {result.winner} minus natural: reward "
        f"{difference(r)}, score {difference(t)}.",
        highlight=False,
    )
    if result.adopted != "natural":
        console.print(f"Instruction: {pool[result.adopted].text}", highlight=False, markup=False)
    when = result.break_even
    console.print(
        f"{result.dialogues} dialogues, {paid:,} tokens paid"
        + (f"; paid back after {when:,.0f} items" if when is not None else "")
        + f". Everything is in {folder}.",
        highlight=False,
    )
