"""``agentcomm audit``: does the content of the messages matter, or only that there are some?"""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from agentcomm.information.audit import Audit, Contrast
    from agentcomm.information.auditing import GraphAudit
    from agentcomm.information.order import OrderCheck
    from agentcomm.information.scorers import Scorer


def audit(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    edge: Annotated[
        list[str] | None,
        typer.Option(
            "--edge", metavar="FROM->TO", help="Only this edge's messages; repeatable. Default: all."
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Also audit every edge alone (three runs more for each).")
    ] = False,
    full: Annotated[
        str,
        typer.Option(
            "--full",
            help="The arm 'full': verbatim (no channel), context (what senders see), none; auto: the first that differs.",
        ),
    ] = "auto",
    order_scorer: Annotated[
        str | None,
        typer.Option(
            "--order-scorer",
            help="Also: do conversations make more sense in order than shuffled? offline, hf/FOLDER, vllm/FOLDER.",
        ),
    ] = None,
    scorer_url: Annotated[
        str | None, typer.Option("--scorer-url", help="Where the order scorer's server answers (…/v1).")
    ] = None,
    permutations: Annotated[
        int, typer.Option("--permutations", help="Other orders of each conversation.")
    ] = 8,
    limit: Annotated[int | None, typer.Option("--limit", help="So many items of the split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="learn, validate or score (default).")] = None,
    data: o.Data = None,
    samples: Annotated[int, typer.Option("--samples", help="Runs of an item in each arm.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory of the runs; the same command again continues. Default: a new one in runs/.",
        ),
    ] = None,
    cut: o.Cut = None,
    adversary: o.Adversary = None,
    channel: o.Channel = None,
    channel_edges: o.ChannelEdges = None,
    margin: Annotated[
        float, typer.Option("--margin", help="Difference of score that doesn't matter (0.02 = 2 points).")
    ] = 0.02,
    level: Annotated[float, typer.Option("--level", help="Confidence of intervals and verdicts.")] = 0.95,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = 0.0,
    max_tokens: o.MaxTokens = 1024,
    run_limit: o.RunLimit = None,
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
    """Find out whether the content of the messages in GRAPH matters to its score on TASK.

    The same items are run with the messages as they are, with other items' messages, with none, and with
    what they were made from. True against others' is what the content does; others' against none what any
    message does. Replies to equal prompts are paid once, and --run-limit holds for all runs together.
    """
    import anyio

    from agentcomm.cli.live import Live
    from agentcomm.information.auditing import audit_graph
    from agentcomm.loading import load_task

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
        run_limit=run_limit,
        item_limit=item_limit,
        agent_limit=agent_limit,
    )
    o.positive(samples, "--samples")
    o.positive(permutations, "--permutations")
    team = o.channelled(o.team(graph, graph_option, adversary), channel, channel_edges)
    work = load_task(task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None))
    where = out or o.new_directory("audit", task, graph)
    judge = None if order_scorer is None else _scorer(order_scorer, scorer_url)
    with Live("", show=not json) as live:

        def on_run(title: str) -> Live:
            live.begin(title)
            return live

        async def go() -> GraphAudit:
            return await audit_graph(
                team,
                work,
                model,
                edges=edge,
                each=each,
                full=full,  # type: ignore[arg-type]  # an unknown word is refused there
                out=where,
                topology=o.topology(team, cut),
                samples=samples,
                margin=margin,
                level=level,
                name=Path(graph).stem,
                order=judge,
                permutations=permutations,
                on_run=on_run,
                options=options,
            )

        try:
            found = anyio.run(go)
        except KeyboardInterrupt:
            raise o.Interrupted(f"the same command with --out {where} continues") from None
        finally:
            if judge is not None:
                judge.close()
    if json:
        typer.echo(
            json_module.dumps(
                {"graph": Path(graph).stem, "task": work.name, "model": model, **found.to_dict()},
                ensure_ascii=False,
            )
        )
    else:
        from rich.console import Console

        show(found, f"{Path(graph).stem} on {work.name}", Console(highlight=False))
    if found.stopped:
        sys.stderr.write(f"stopped early: {found.stopped}; the same command with --out {where} continues\n")
    raise typer.Exit(1 if found.stopped or any(found.failed.values()) else 0)


def _scorer(name: str, url: str | None) -> Scorer:
    from agentcomm.information.order import CONVERSATION
    from agentcomm.information.scorers import open_scorer

    name = "offline/ngram" if name == "offline" else name
    prompt = {} if name.startswith("offline/") else {"prompt": CONVERSATION}
    return open_scorer(name, base_url=url, **prompt)


def show(found: GraphAudit, title: str, console: Console) -> None:
    """The sentence, the arms, the effects, and what finding out took."""
    from agentcomm.cli.tables import add, number, table

    console.print(f"{title}, {found.items} items: {', '.join(found.edges)}", markup=False)
    if found.audits:
        arms = table("arm", right=("score", f"{found.level:.0%}"))
        for arm, score in found.scores.items():
            limits = "–" if score.low is None else f"{100 * score.low:.0f}, {100 * (score.high or 0):.0f}"
            add(arms, _arm(arm, found), number(None if score.mean is None else 100 * score.mean, 1), limits)
        console.print(arms)
        console.print(_effects(found))
    console.print(f"full: {found.full_means}" + _saved(found), markup=False)
    if found.length_difference is not None:
        console.print(
            f"others' messages are of another document and nearest in length "
            f"({found.length_difference:,.0f} characters apart on average)"
            + (f"; {found.no_donor} items had none and are left out" if found.no_donor else ""),
            markup=False,
        )
    console.print(
        "content: true − mismatched; generic: mismatched − empty; loss: full − true, in points of score. "
        f"equivalent: both one-sided tests within {100 * found.margin:g} points. p: Holm's correction over the "
        "rows. needed: examples that would show that much.",
        markup=False,
    )
    if any(found.failed.values()):
        told = ", ".join(f"{n} {arm}" for arm, n in found.failed.items() if n)
        console.print(f"episodes that failed (their pairs are left out): {told}", markup=False)
    if found.order is not None:
        _show_order(found.order, console)
    paid = found.paid
    told = f"{paid.runs} runs, {paid.episodes:,} episodes: {paid.tokens:,} tokens paid"
    if paid.replayed:
        told += f", {paid.replayed:,} answered from replies kept"
    told += f", cost ${paid.cost:.4f}" if paid.cost else ""
    console.print(told + f"; they are in {found.path}", markup=False)
    for audit in found.audits[1:]:
        console.print(f"{audit.what}: {audit.sentence}", markup=False, soft_wrap=True)
    console.print(found.sentence, markup=False, soft_wrap=True)


def _arm(arm: str, found: GraphAudit) -> str:
    words = {"true": "its own messages", "mismatched": "other items' messages", "empty": "none"}
    return f"{arm}: {words.get(arm, found.full)}"


def _effects(found: GraphAudit) -> Table:
    from agentcomm.cli.tables import add, table

    made = table("messages", "effect", "verdict", right=("points", f"{found.level:.0%}", "p", "needed"))
    for audit in found.audits:
        add(made, audit.what, "content", audit.verdict.replace("_", " "), *_numbers(audit.content))
        add(made, "", "generic", _equal(audit.generic, audit), *_numbers(audit.generic))
        if audit.loss is not None:
            add(made, "", "loss", _equal(audit.loss, audit), *_numbers(audit.loss))
    return made


def _equal(contrast: Contrast, audit: Audit) -> str:
    return f"within {100 * audit.margin:g} points" if contrast.equivalent else ""


def _numbers(c: Contrast) -> list[str]:
    from agentcomm.cli.tables import number

    limits = "–" if c.low is None or c.high is None else f"{100 * c.low:+.0f}, {100 * c.high:+.0f}"
    return [
        "–" if c.mean is None else f"{100 * c.mean:+.1f}",
        limits,
        "–" if c.p_holm is None else f"{c.p_holm:.3f}" if c.p_holm >= 0.001 else "<0.001",
        number(c.needed),
    ]


def _saved(found: GraphAudit) -> str:
    saved = found.saved
    if saved is None or saved.mean is None:
        return ""
    if saved.mean == 0:
        return "; an item takes as many tokens with its own messages"
    limits = "" if saved.low is None or saved.high is None else f" [{saved.low:,.0f}, {saved.high:,.0f}]"
    less, by = ("fewer", saved.mean) if saved.mean >= 0 else ("more", -saved.mean)
    if saved.mean < 0 and limits and saved.low is not None and saved.high is not None:
        limits = f" [{-saved.high:,.0f}, {-saved.low:,.0f}]"
    return f"; with its own messages an item takes {by:,.0f}{limits} tokens {less}, compressing included"


def _show_order(order: OrderCheck, console: Console) -> None:
    from agentcomm.cli.tables import add, number, table

    made = table("order of messages", right=("held", "shuffled", "gain", "interval", "conversations"))
    for name, gain in (("as said", order.before), ("as read", order.after)):
        if gain is None:
            continue
        limits = "–" if gain.interval is None else f"{gain.interval.low:.3f}, {gain.interval.high:.3f}"
        add(
            made,
            name,
            number(gain.held_bits, 3),
            number(gain.shuffled_bits, 3),
            number(gain.gain_bits, 3),
            limits,
            f"{gain.conversations:,}",
        )
    console.print(made)
    if order.change_bits is not None:
        between = order.change_interval
        told = "" if between is None else f" [{between.low:+.3f}, {between.high:+.3f}]"
        console.print(f"the channel changes the gain by {order.change_bits:+.3f}{told}", markup=False)
    out = (order.before.too_short, order.before.failed)
    if any(out):
        console.print(
            f"left out: {out[0]} conversations without two different messages, {out[1]} that could not be scored",
            markup=False,
        )
    console.print(f"bits a byte, {order.scorer_id}, {order.permutations} other orders of each", markup=False)
    console.print(order.sentence, markup=False, soft_wrap=True)
