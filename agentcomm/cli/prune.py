"""``agentcomm prune``: learn which agents and edges each item needs, and say what that saves."""

from __future__ import annotations

import json as json_module
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.pruning.fitting import Learned
    from agentcomm.pruning.runner import LearnProgress
    from agentcomm.pruning.savings import Saving, Savings

SHOWN = 20
"""Edges in the table at most: those that took the most."""


def prune(
    graph: o.GraphName,
    task: o.TaskName,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="frugal (some hundred rollouts), agp (about 38,000, with --set mode=reinforce some thousand), "
            "gdesigner (about 19,000), gptswarm, agentprune, agentdropout (some thousand; one graph for all "
            "items), random, none.",
        ),
    ] = "frugal",
    model: o.Model = None,
    rollouts: Annotated[
        int | None,
        typer.Option(
            "--rollouts", help="Runs of a team on an item, those that measure included. Default: 300."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", help="Stop once so many are paid; alone, it also plans the rollouts."),
    ] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="Stop once so many US dollars are paid.")
    ] = None,
    price: Annotated[
        float,
        typer.Option(
            "--price",
            help="What the whole team's tokens are worth in score. 0.2: to save them all, 20 points may be lost; "
            "0.02: next to nothing may be lost.",
        ),
    ] = 0.2,
    confirm: Annotated[
        int | None,
        typer.Option(
            "--confirm",
            help="Validate items to run afterwards under the whole team and under what was learned, beyond "
            "--rollouts; what loses there isn't adopted. 0: none. Default: 50.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", help="Loss of score there that may be (0.02 = 2 points).")
    ] = 0.02,
    edges: Annotated[
        str,
        typer.Option("--edges", help="graph: only the graph's own edges; complete: any pair, either way."),
    ] = "graph",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The policy's folder; the same command again continues it. Default: in policies/."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable."),
    ] = None,
    embedder: o.Embedder = None,
    records: Annotated[
        Path | None,
        typer.Option("--records", help="File of rollouts to use and to add to, instead of the folder's own."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            help="So many learn items at most; fewer cost less, more replies then come from the cache. Default: 200.",
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option("--draws", help="Different replies to one prompt, where the temperature isn't 0."),
    ] = 1,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    data: o.Data = None,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    adversary: o.Adversary = None,
    channel: o.Channel = None,
    channel_edges: o.ChannelEdges = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the method.")] = 0,
    temperature: o.Temperature = 0.0,
    max_tokens: o.MaxTokens = 1024,
    item_limit: o.ItemLimit = None,
    agent_limit: o.AgentLimit = None,
    prices: o.Prices = None,
    retries: o.Retries = 5,
    timeout: o.Timeout = 120.0,
    concurrency: o.Concurrency = None,
    executor: Annotated[
        str, typer.Option("--executor", help="plain or langgraph; both make the same calls.")
    ] = "plain",
    cache: o.Cache = None,
    json: o.Json = False,
) -> None:
    """Learn from rollouts of GRAPH on TASK's learn items whom each item needs, and what that saves.

    The folder gets policy.json, weights.safetensors and learning/ with the ledger of all that was
    paid, every rollout and every reply. After Ctrl-C, a crash or kill -9, or with a larger budget,
    the same command continues: no reply is paid for twice, also where two teams ask the same.

    What loses score on validate items is not adopted: the folder then holds the whole team as its
    policy, and what was learned in refused/.

    Use it with: agentcomm eval GRAPH TASK --policy FOLDER
    """
    import anyio

    from agentcomm.errors import TaskError
    from agentcomm.loading import load_task
    from agentcomm.pruning.fitting import learn

    team = o.channelled(o.team(graph, graph_option, adversary), channel, channel_edges)
    loading = o.task_options(task_option, data=data, limit=None, split="learn", seed=None)
    if limit is not None:
        o.positive(limit, "--limit")
        loading.setdefault("limit", limit)
    try:
        work = load_task(task, loading)
    except TaskError as error:
        if "has no option split" not in str(error):
            raise
        raise TaskError(
            f"{error}; learning needs items of its own, so the task has to take split= and give those of "
            f"'learn', 'validate' and 'score' (agentcomm.evaluation.splits)"
        ) from error
    validate = o.other_split(task, loading, "validate")
    options = o.run_options(
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
    where = out or _new_folder(task, graph)
    began = time.monotonic()
    with LiveLearning(f"{Path(graph).stem} on {work.name}", show=not json) as progress:

        async def go() -> Learned:
            return await learn(
                team,
                work,
                method,
                model=model,
                rollouts=rollouts,
                tokens=tokens,
                cost=cost,
                seed=seed,
                edges=edges,  # type: ignore[arg-type]  # Pool refuses other words
                price=price,
                confirm=confirm,
                margin=margin,
                embedder=o.embedder(embedder),
                out=where,
                records=records,
                draws=draws,
                limit=limit,
                validate=validate or (),
                on_progress=progress,
                options=options,
                settings=o.key_values(set_, "--set"),
            )

        try:
            learned = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
    card, savings = learned.policy.card, learned.savings
    assert savings is not None
    seconds = round(time.monotonic() - began, 1)
    if json:
        told = {
            "policy": str(where),
            "method": card.method,
            "model": card.model,
            "seed": card.seed,
            "spent": dict(card.spent),
            "notes": list(card.notes),
            "adopted": learned.adopted,
            "confirmation": None if learned.confirmation is None else learned.confirmation.to_dict(),
            "evidence": None if learned.evidence is None else learned.evidence.to_dict(),
            "learn_items": len(card.learned_from),
            **savings.to_dict(),
            "seconds": seconds,
        }
        typer.echo(json_module.dumps(told, ensure_ascii=False))
    else:
        show(learned, where, f"agentcomm eval {graph} {task} --policy {where}", seconds)


class LiveLearning:
    """Live progress of learning on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, *, show: bool = True, every_s: float = 10.0) -> None:
        from rich.console import Console

        self.title, self.every_s = title, every_s
        self.shown = time.monotonic()
        self.last: LearnProgress | None = None
        console = Console(stderr=True)
        self.bar: Any = None
        self.lines = show and not console.is_terminal
        if show and console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )

    def __enter__(self) -> LiveLearning:
        if self.bar is not None:
            self.bar.start()
            self.task_id = self.bar.add_task(self.title, total=None, note="")
        return self

    def __call__(self, progress: LearnProgress) -> None:
        self.last = progress
        if self.bar is not None:
            self.bar.update(
                self.task_id,
                total=progress.total,
                completed=progress.spent.all_rollouts,
                description=f"{self.title}: {progress.doing}",
                note=describe(progress),
            )
        elif self.lines and time.monotonic() - self.shown > self.every_s:
            self._line()

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif self.lines and self.last is not None:
            self._line()

    def _line(self) -> None:
        if self.last is not None:
            self.shown = time.monotonic()
            total = "?" if self.last.total is None else f"{self.last.total:,}"
            sys.stderr.write(
                f"{self.title}: {self.last.doing}: {self.last.spent.all_rollouts:,}/{total} rollouts, "
                f"{describe(self.last)}\n"
            )


def describe(progress: LearnProgress) -> str:
    """Utility now and at its best, tokens paid and saved, and time left, in one line."""
    from agentcomm.cli.live import _duration

    spent, parts = progress.spent, []
    if progress.recent is not None:
        best = "" if progress.best is None else f" (best {progress.best:.2f})"
        parts.append(f"utility {progress.recent:.2f}{best}")
    if spent.failed:
        parts.append(f"{spent.failed:,} failed")
    parts.append(f"{spent.tokens:,} tokens paid, {spent.saved_tokens:,} saved by the cache")
    if spent.cost is not None:
        parts.append(f"${spent.cost:.4f}")
    left = progress.seconds_left
    if left:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def show(learned: Learned, where: Path, use: str, seconds: float, console: Console | None = None) -> None:
    """What was kept, what was cut, what each saved, what learning cost and when it is paid back."""
    from rich.console import Console
    from rich.markup import escape

    from agentcomm.cli.tables import number
    from agentcomm.pruning.fitting import REFUSED

    console = console or Console(highlight=False)
    card, s = learned.policy.card, learned.savings
    assert s is not None
    items = f"{s.asked} {s.asked_on} items" + ("" if s.asked_on == "validate" else " (there are no others)")
    confirmed = learned.confirmation.sentences() if learned.confirmation is not None else []
    if not learned.adopted:
        console.print(f"{confirmed[0]}\n", markup=False)
    what = "" if learned.adopted else ", not adopted"
    console.print(
        f"[bold]{escape(card.method)}[/]{what} for {escape(str(card.model or 'each agent its own model'))}: "
        f"kept on {items}, tokens an item measured on {s.measured}"
    )
    console.print(_table("agent", s.agents, s.asked))
    by_size = sorted(s.edges, key=lambda e: -max(e.before or 0.0, e.after or 0.0))
    console.print(_table("edge", by_size[:SHOWN], s.asked))
    if len(s.edges) > SHOWN:
        console.print(f"and {len(s.edges) - SHOWN} smaller edges; --json has all", markup=False)
    for line in sentences(s, card.spent, adopted=learned.adopted):
        console.print(line, markup=False)
    for line in confirmed if learned.adopted else confirmed[1:]:
        console.print(line, markup=False)
    for note in card.notes:
        if note not in confirmed:
            console.print(f"note: {note}", markup=False)
    if not learned.adopted:
        console.print(f"what was learned: {where / REFUSED}", markup=False, soft_wrap=True)
    console.print(f"{number(seconds)} s. policy: {where}\n{use}", markup=False, soft_wrap=True)


def _table(name: str, rows: list[Saving] | tuple[Saving, ...], asked: int) -> Any:
    from agentcomm.cli.tables import add, number, table

    made = table(name, right=("kept", "before", "after", "saved"))
    for row in rows:
        kept = "cut" if row.kept == 0 else f"{row.kept:.0%}"
        more = "" if row.there else " (added)"
        add(made, row.name + more, kept, number(row.before), number(row.after), number(row.saved))
    return made


def sentences(s: Savings, spent: Any, *, adopted: bool = True) -> list[str]:
    """What it comes to, in words."""
    from agentcomm.cli.tables import number

    cut = [a.name for a in s.agents if a.kept == 0]
    lost = [e for e in s.edges if e.kept == 0 and e.there]
    mine = sum(e.there for e in s.edges)
    lines = [
        f"agents never used: {', '.join(cut) or 'none'}; edges never used: {len(lost)} of {mine}"
        + (f"; edges added: {n}" if (n := sum(not e.there and e.kept > 0 for e in s.edges)) else "")
    ]
    if s.before is not None and s.after is not None:
        share = f" ({(s.after - s.before) / s.before:+.0%})" if s.before else ""
        lines.append(f"tokens an item: {number(s.before)} before, {number(s.after)} after{share}")
    else:
        lines.append("tokens an item: unknown, the model doesn't tell them")
    if s.score_before is not None and s.score_after is not None:
        lines.append(
            f"score on these {s.measured} learn items: {s.score_before:.2f} before, {s.score_after:.2f} after (it has "
            f"learned from these, so that promises nothing)"
        )
    failed = f", {spent['failed']:,} of them failed" if spent.get("failed") else ""
    dollars = f", ${spent['cost']:.4f}" if spent.get("cost") is not None else ""
    unknown = f", {spent['unknown_calls']:,} more of unknown size" if spent.get("unknown_calls") else ""
    lines.append(
        f"learning: {spent['rollouts']:,} rollouts{failed}, {spent['tokens']:,} tokens in {spent['calls']:,} calls"
        f"{unknown}{dollars}; {spent['saved_calls']:,} replies came from the cache, which saved "
        f"{spent['saved_tokens']:,} tokens"
    )
    if not adopted:
        return lines
    if s.break_even is not None:
        lines.append(f"paid back after {number(s.break_even)} items")
    elif s.before is not None and s.after is not None:
        lines.append("never paid back: it saves no tokens")
    return lines


def _new_folder(task: str, graph: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = Path("policies") / f"{stamp}-{Path(task).stem}-{Path(graph).stem}"
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path
