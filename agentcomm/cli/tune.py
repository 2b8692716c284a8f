"""``agentcomm tune``: what makes a team say less or answer better, without training anything."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from agentcomm.dialogue.play import Team
    from agentcomm.dialogue.policy import DialoguePolicy
    from agentcomm.dialogue.reward import RewardConfig
    from agentcomm.graph import AgentGraph

KINDS = ("formats", "best-of-n", "reflect", "memory")


def tune(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    search: Annotated[
        str,
        typer.Option(
            "--search",
            help="formats: the shipped pool, or some of it: json,telegraphic,...; best-of-n; reflect (extra gepa); "
            "memory.",
        ),
    ] = "formats",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the dialogues and result.json; the same command continues."),
    ] = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            "--rungs",
            help="Items of each round; the better half of the formats goes on. Default: 8,16,32; memory: 16.",
        ),
    ] = None,
    calibrate: Annotated[int, typer.Option("--calibrate", help="Items that set what a token costs.")] = 30,
    accept: Annotated[
        int, typer.Option("--accept", help="validate items on which the winner meets natural language.")
    ] = 32,
    samples: Annotated[
        int, typer.Option("--samples", help="best-of-n: dialogues for each item, at every use.")
    ] = 4,
    start: Annotated[
        str, typer.Option("--start", help="reflect: the format whose example is rewritten.")
    ] = "natural_terse",
    reflect_model: Annotated[
        str | None,
        typer.Option("--reflect-model", help="reflect: the model that writes; --model by default."),
    ] = None,
    reflections: Annotated[int, typer.Option("--reflections", help="reflect: its calls at most.")] = 12,
    dialogues: Annotated[
        int,
        typer.Option("--dialogues", help="reflect: dialogues at most, beside calibration and comparison."),
    ] = 150,
    token_weight: Annotated[
        float, typer.Option("--token-weight", help="Points of score for the tokens of a long dialogue.")
    ] = 0.6,
    readability: Annotated[
        str,
        typer.Option(
            "--readability",
            help="Who reads messages: off, ngram, hf/FOLDER or vllm/FOLDER; on, it is rewarded.",
        ),
    ] = "off",
    loss_weight: Annotated[
        float, typer.Option("--loss-weight", help="What readability counts for, where it is read.")
    ] = 1.0,
    count: Annotated[
        str | None,
        typer.Option(
            "--count",
            help="Which tokens: message, completion, total (prompts too). Default: message; reflect, memory: total.",
        ),
    ] = None,
    min_tokens: Annotated[
        int, typer.Option("--min-tokens", help="A dialogue of so few tokens counts as too short.")
    ] = 8,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    data: o.Data = None,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="For agents that don't set one. Default: 0; best-of-n: 0.7."),
    ] = None,
    max_tokens: o.MaxTokens = 1024,
    run_limit: o.RunLimit = None,
    item_limit: o.ItemLimit = None,
    agent_limit: o.AgentLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Find what GRAPH can do better on TASK without training, or keep it as it is.

    GRAPH is a file or shipped graph with the option ``instruction``, such as information_exchange.
    ``formats``: ways of writing play the same learn items, the better half goes on. ``reflect``: a model
    rewrites one format's example. ``memory``: good dialogues are shown as demonstrations. The winner then
    meets natural language on validate items, and is used only if its reward is surely higher and its
    score not lower. ``best-of-n``: several dialogues for each item, of which the largest group of
    answers is taken. All tokens count, and the result says after how many items they are paid back.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.dialogue import formats
    from agentcomm.dialogue.play import Team
    from agentcomm.dialogue.reward import RewardConfig
    from agentcomm.dialogue.search import FormatSearch, SearchPlan
    from agentcomm.errors import ConfigError, GraphError
    from agentcomm.evaluation.held import held
    from agentcomm.evaluation.rundir import plain, write_json
    from agentcomm.ledger.limits import Limits
    from agentcomm.loading import load_graph, load_task

    kind = search if search in KINDS else "formats"
    count = count or ("total" if kind in ("reflect", "memory") else "message")
    if kind == "best-of-n":
        temperature = 0.7 if temperature is None else temperature
        if temperature == 0:
            raise ConfigError("best-of-n at --temperature 0 samples the same dialogue again; use 0.7, say")
    options = o.run_options(
        seed=seed,
        temperature=temperature or 0.0,
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
        run_limit=run_limit,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
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

    try:
        sizes = tuple(int(n) for n in (rungs or ("16" if kind == "memory" else "8,16,32")).split(","))
    except ValueError:
        raise ConfigError(f"--rungs {rungs!r}; write numbers, as in 8,16,32") from None
    plan = SearchPlan(calibrate=calibrate, rungs=sizes, accept=accept)
    reader = _reader(readability, model, base_url)
    config = RewardConfig(
        token_weight=token_weight,
        loss_weight=0.0 if reader is None else loss_weight,
        count=count,  # type: ignore[arg-type]
        min_tokens=min_tokens,
    )
    job: Any
    if kind == "best-of-n":
        from agentcomm.dialogue.best import BestOfN

        job = BestOfN(samples, accept, config=config, seed=seed)
        needs, most, more = 0, job.most, 0
    elif kind == "reflect":
        from agentcomm.dialogue.reflect import ReflectiveSearch, ReflectPlan

        steps = ReflectPlan(calibrate=calibrate, dialogues=dialogues, reflections=reflections, accept=accept)
        job = ReflectiveSearch(formats.pool([start])[start], steps, config, seed)
        needs, most, more = steps.learn_items, steps.most, reflections
    elif kind == "memory":
        job = None  # made of what calibration plays
        needs, most, more = plan.learn_items, plan.most(3), 0
        if count != "total":
            raise ConfigError("memory shows demonstrations in prompts; leave --count at total")
    else:
        ids = formats.BANDIT if search == "formats" else [w.strip() for w in search.split(",") if w.strip()]
        job = FormatSearch(formats.pool(ids), plan, config, seed)
        needs, most, more = plan.learn_items, plan.most(len(job.formats)), 0

    def items(split: str, limit: int) -> Any:
        return load_task(task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None))

    learn, validate = items("learn", max(1, needs)), items("validate", accept)
    _enough(learn, needs, "learn", "--calibrate or --rungs")
    _enough(validate, accept, "validate", "--accept")
    _announce(graph_of(""), most, more)
    folder = out or Path("formats") / f"{Path(task).stem}-{Path(graph).stem}"
    with Live("", show=not json) as progress:
        team = Team(
            graph_of,
            learn,
            learn.items,
            validate.items,
            model,
            folder,
            replace(options, limits=Limits()),
            None if json else progress.tell,
            limits=options.limits,
            readability=reader,
        )

        async def go() -> Found:
            async with held(model, options):
                if kind == "best-of-n":
                    return Found(await job.run(team))
                if kind == "reflect":
                    return await _reflect(job, team, reflect_model or model)
                if kind == "memory":
                    return await _memory(team, plan, config, seed)
                return Found(await job.run(team), dict(job.formats))

        try:
            found = anyio.run(go)
        finally:
            if reader is not None:
                reader.close()
    paid = team.paid_tokens + found.written_tokens
    if found.result.spent is not None:
        # What failed, was tried again, or read messages for their likelihood has to be paid back too.
        found.result = replace(found.result, spent=paid)
    result = found.result
    adopted = getattr(result, "adopted", None)
    policy = _policy(team, found, adopted if isinstance(adopted, str) else "natural", paid)
    if policy is not None:
        policy.save(folder)
    report = plain({**result.to_dict(), "search": kind, "paid_tokens": paid, "reward": config.to_dict()})
    if kind != "best-of-n":
        report["difference"] = plain({"reward": result.to_dict()["reward"], "task": result.to_dict()["task"]})
        report["formats"] = {id: f.text for id, f in found.formats.items()}
    write_json(folder / "result.json", report)
    if json:
        typer.echo(json_module.dumps(report))
        return
    _show(found, kind, paid, folder, policy is not None)


class Found:
    """What a search found: its result, the formats by id, what memories show, and tokens written beside."""

    def __init__(
        self,
        result: Any,
        formats: dict[str, Any] | None = None,
        memories: dict[str, Any] | None = None,
        written_tokens: int = 0,
    ) -> None:
        self.result, self.formats, self.memories = result, formats or {}, memories or {}
        self.written_tokens = written_tokens


async def _reflect(job: Any, team: Team, model: str | None) -> Found:
    from agentcomm.dialogue.play import Muse, left, tokens_of

    muse = Muse(model, team.folder, replace(team.options, temperature=0.7) if team.options else None)

    async def ask(prompt: str) -> str | None:
        return await muse.ask(prompt, left(team.limits, team.paid))

    result = await job.run(team, ask)
    written = tokens_of(muse.paid)
    known = all(c.output_tokens is not None for c in muse.paid if c.error_kind is None)
    spent = result.spent + written if result.spent is not None and known else None
    return Found(replace(result, spent=spent), job.candidates, written_tokens=written)


async def _memory(team: Team, plan: Any, config: RewardConfig, seed: int) -> Found:
    from agentcomm.dialogue.formats import POOL
    from agentcomm.dialogue.memory import memories, memory_search

    played = await team.play(POOL["natural"], range(plan.calibrate), "calibrate")
    remembered = memories(team.learn[: plan.calibrate], played, config, share=plan.quantile)
    found, ways = memory_search(remembered, plan, config, seed)
    team.ways.update(ways)
    team.paid.clear()  # the search reads the same dialogues from their ledger
    team.read_tokens = 0
    return Found(await found.run(team), memories={m.id: m for m in remembered})


def _reader(word: str, model: str | None, base_url: str | None) -> Any:
    if word == "off":
        return None
    from agentcomm.dialogue.readability import open_readability

    return open_readability(word, model, base_url=base_url)


def _enough(task: Any, needs: int, split: str, options: str) -> None:
    """Refuses, before anything is paid, a search that will run out of items."""
    from agentcomm.errors import ConfigError

    if len(task.items) < needs:
        raise ConfigError(
            f"this search plays {needs} {split} items; {task.name} has {len(task.items)}: lower {options}"
        )


def _announce(graph: AgentGraph, dialogues: int, more: int) -> None:
    """Says on stderr what the search may cost, before anything is asked."""
    from agentcomm.forecast import forecast

    calls = sum(r.calls for r in forecast(graph))
    beside = f", {more} of them by the model that writes" if more else ""
    typer.echo(
        f"at most {dialogues:,} dialogues of {calls} calls: {dialogues * calls + more:,} calls{beside}",
        err=True,
    )


def _policy(team: Team, found: Found, adopted: str, paid: int) -> DialoguePolicy | None:
    """What was adopted as data, for ``agentcomm eval``; ``None`` where natural language stays."""
    from agentcomm.dialogue.policy import DialoguePolicy
    from agentcomm.evaluation.splits import hash_of

    seen = tuple(sorted(hash_of(i) for i in (*team.learn, *team.validate)))
    plain = team.graph_of("")
    if adopted in found.memories:
        memory = found.memories[adopted]
        shown: dict[str, list[str]] = {}
        texts: dict[str, str] = {}
        for item, sides in zip(memory.items, memory.shown, strict=True):
            for agent, text in sides.items():
                shown.setdefault(agent, []).append(f"{item}/{agent}")
                texts[f"{item}/{agent}"] = text
        by_agent = {agent: tuple(ids) for agent, ids in shown.items()}
        return DialoguePolicy(demonstrations=by_agent, texts=texts, learned_from=seen, spent=paid)
    text = found.formats[adopted].text if adopted in found.formats else ""
    if not text:
        return None
    told = team.graph_of(text)
    agents = [a.name for a in told.agents if a.role != plain.by_name[a.name].role]
    return DialoguePolicy(formats=dict.fromkeys(agents, text), learned_from=seen, spent=paid)


def _difference(d: Any) -> str:
    if d.mean is None:
        return "–"
    return f"{d.mean:+.3f}" if d.low is None else f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _show(found: Found, kind: str, paid: int, folder: Path, saved: bool) -> None:
    from rich.console import Console

    from agentcomm.cli.tables import number

    console = Console()
    say: Callable[[str], None] = lambda text: console.print(text, highlight=False, markup=False)  # noqa: E731
    result = found.result
    if kind == "best-of-n":
        say(
            f"{result.verdict[0].upper()}{result.verdict[1:]}. On {result.items} validate items: one dialogue "
            f"{result.one:.3f}, chosen {result.chosen:.3f} ({_difference(result.difference)}), the best by labels "
            f"{result.oracle:.3f}; {number(result.tokens_one)} and {number(result.tokens_all)} tokens an item."
        )
    else:
        console.print(_table(result))
        say(f"Not beaten in both score and tokens (round 1): {', '.join(result.front)}.")
        r = result.reward
        say(
            f"{result.verdict}. On {r.items} validate items, {result.winner} minus natural: reward "
            f"{_difference(r)}, score {_difference(result.task)}."
        )
        if result.adopted in found.formats and result.adopted != "natural":
            say(f"Instruction: {found.formats[result.adopted].text}")
    when = None if kind == "best-of-n" else result.break_even
    back = f"; paid back after {when:,.0f} items" if when is not None else "; never paid back"
    if saved:
        say(f"policy.json in {folder} is what was adopted.")
    say(f"{result.dialogues} dialogues, {paid:,} tokens paid{back}. Everything is in {folder}.")


def _table(result: Any) -> Any:
    from agentcomm.cli.tables import add, number, table

    rows = table("round", "format", right=("items", "failed", "score", "tokens", "all", "nll", "reward"))
    last = max(s.rung for s in result.standings)
    for s in result.standings:
        add(
            rows,
            "final" if s.rung == last else str(s.rung),
            f"{s.format} *" if s.kept else s.format,
            str(s.items),
            str(s.failed),
            number(s.task, 2),
            number(s.tokens),
            number(s.total_tokens),
            number(s.nll, 2),
            number(s.reward, 3),
        )
    return rows
