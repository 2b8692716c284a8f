"""``agentcomm train``: agents that learn from their own dialogues to say the same in fewer tokens."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from agentcomm.cli import options as o


def train(
    graph: o.GraphName,
    task: o.TaskName,
    model: o.Model = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="isft: imitate the best dialogues; idpo: then prefer the better of two messages; isft-dpo: in turn.",
        ),
    ] = "isft",
    iterations: Annotated[
        int, typer.Option("--iterations", help="How many in all; more of them continue a finished run.")
    ] = 3,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for adapters and dialogues; the same command continues."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write one iteration's rows to this file instead of training."),
    ] = None,
    items: Annotated[int, typer.Option("--items", help="learn items.")] = 60,
    validate: Annotated[
        int, typer.Option("--validate", help="validate items that a trained model is accepted on.")
    ] = 60,
    samples: Annotated[int, typer.Option("--samples", help="Dialogues an item.")] = 4,
    expansions: Annotated[
        int, typer.Option("--expansions", help="Of a tree (idpo, isft-dpo): each plays --rollouts dialogues.")
    ] = 8,
    rollouts: Annotated[int, typer.Option("--rollouts", help="Dialogues of an expansion.")] = 3,
    formats: Annotated[
        str,
        typer.Option(
            "--formats", help="Message formats of the first iteration: all, none, or json,telegraphic,..."
        ),
    ] = "all",
    selector: Annotated[
        str, typer.Option("--selector", help="Which dialogues: reward; as controls random, unfiltered.")
    ] = "reward",
    pairs: Annotated[str, typer.Option("--pairs", help="Which pairs of messages: q, gap, random.")] = "q",
    threshold: Annotated[
        float, typer.Option("--threshold", help="Reward above which a dialogue is imitated.")
    ] = 0.5,
    share: Annotated[int, typer.Option("--share", help="Percent of these that stays.")] = 70,
    order: Annotated[
        str, typer.Option("--order", help="paper: threshold, then share; code: the reverse.")
    ] = "paper",
    least: Annotated[
        float, typer.Option("--least", help="Value above which a message may be preferred.")
    ] = 0.4,
    gap: Annotated[float, typer.Option("--gap", help="Difference to the other message, at least.")] = 0.2,
    accept: Annotated[
        str, typer.Option("--accept", help="better: only a surely better model replaces the last; always.")
    ] = "better",
    restart: Annotated[
        bool, typer.Option("--restart", help="Imitate from the base model each time (debates).")
    ] = False,
    token_weight: Annotated[
        float, typer.Option("--token-weight", help="Points of score for the tokens of a long dialogue.")
    ] = 0.6,
    loss_weight: Annotated[
        float, typer.Option("--loss-weight", help="Weight of readability; 0 switches it off.")
    ] = 1.0,
    count: Annotated[
        str, typer.Option("--count", help="Which tokens: message, completion, total (prompts too).")
    ] = "message",
    min_tokens: Annotated[
        int, typer.Option("--min-tokens", help="A dialogue of so few tokens counts as too short.")
    ] = 8,
    task_floor: Annotated[
        float, typer.Option("--task-floor", help="Score below which nothing is imitated.")
    ] = 0.5,
    readability: Annotated[
        str,
        typer.Option(
            "--readability", help="auto (the model before training), ngram, off, hf/FOLDER, vllm/FOLDER."
        ),
    ] = "auto",
    calibrate: Annotated[
        int, typer.Option("--calibrate", help="Dialogues that set what a token costs.")
    ] = 100,
    rank: Annotated[int, typer.Option("--rank", help="Of the LoRA adapters.")] = 8,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Of imitation; default 2e-4.")
    ] = None,
    dpo_learning_rate: Annotated[
        float | None, typer.Option("--dpo-learning-rate", help="Of preferring; default 1e-5.")
    ] = None,
    beta: Annotated[float, typer.Option("--beta", help="Of DPO.")] = 0.1,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the rows of an iteration.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows a step.")] = 4,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Steps of a training at most.")] = None,
    device: Annotated[str, typer.Option("--device", help="Where to train: auto, cpu, cuda.")] = "auto",
    keep_cut: Annotated[
        bool, typer.Option("--keep-cut", help="Learn from messages that max_tokens cut off too.")
    ] = False,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="vllm/: serve trained models as merged folders, without LoRA, which is slow on CPUs.",
        ),
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Train in bfloat16.")] = False,
    sampling: Annotated[
        float, typer.Option("--sampling-temperature", help="Of the dialogues that are learned from.")
    ] = 0.7,
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    data: o.Data = None,
    graph_option: o.GraphOption = None,
    task_option: o.TaskOption = None,
    seed: o.Seed = 0,
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
    """Train the model of GRAPH's agents on their own dialogues about TASK, to say the same in fewer tokens.

    GRAPH is a team that speaks in turn, such as information_exchange or debate_pair. Dialogues about
    learn items are ranked by score, tokens and readability; the best are learned from, and a trained
    model replaces the last where it is better on validate items. Adapters are OUT/iter1, OUT/iter2, ...
    --model hf/FOLDER is trained and answers in this process, vllm/FOLDER is served by vLLM. With
    --export any model will do.
    """
    import anyio

    from agentcomm.backends.adapters import ModelRef
    from agentcomm.cli.live import Live
    from agentcomm.dialogue.export import TrainConfig
    from agentcomm.dialogue.formats import pool
    from agentcomm.dialogue.learning import Learning
    from agentcomm.dialogue.plan import LearnConfig
    from agentcomm.dialogue.readability import open_readability
    from agentcomm.dialogue.reward import RewardConfig
    from agentcomm.dialogue.workshop import Elsewhere, TrlWorkshop, require_trainable
    from agentcomm.errors import ConfigError, GraphError, TaskError
    from agentcomm.graph import AgentGraph
    from agentcomm.loading import load_graph, load_task

    if model is None:
        raise ConfigError("no model: pass --model hf/FOLDER")
    options = o.run_options(
        seed=seed,
        temperature=0.0,
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
    shared = {
        "rank": rank,
        "epochs": epochs,
        "batch_size": batch_size,
        "max_steps": max_steps,
        "beta": beta,
        "bf16": bf16,
    }
    config = LearnConfig(
        method=method,  # type: ignore[arg-type]
        samples=samples,
        temperature=sampling,
        formats=() if formats == "none" else tuple(pool(None if formats == "all" else formats.split(","))),
        threshold=threshold,
        share=share,
        order=order,  # type: ignore[arg-type]
        selector=selector,  # type: ignore[arg-type]
        least=least,
        gap=gap,
        pair_selector=pairs,  # type: ignore[arg-type]
        expansions=expansions,
        rollouts=rollouts,
        calibrate=calibrate,
        accept="always" if export is not None else accept,  # type: ignore[arg-type]
        restart=restart,
        keep_cut=keep_cut,
        reward=RewardConfig(
            token_weight=token_weight,
            loss_weight=0.0 if readability == "off" else loss_weight,
            count=count,  # type: ignore[arg-type]
            min_tokens=min_tokens,
            task_floor=task_floor,
        ),
        sft=TrainConfig("sft", learning_rate=learning_rate, **shared),  # type: ignore[arg-type]
        dpo=TrainConfig("rpo", learning_rate=dpo_learning_rate, **shared),  # type: ignore[arg-type]
        seed=seed,
    )
    given = o.key_values(graph_option, "--graph-option")
    if "instruction" in given:
        raise ConfigError("-G instruction=... is what --formats is about; leave it out")

    def graph_of(instruction: str) -> AgentGraph:
        try:
            return load_graph(graph, {**given, "instruction": instruction} if instruction else given)
        except GraphError as error:
            if not instruction:
                raise
            raise ConfigError(
                f"{error} (formats need a graph that takes the option instruction, such as information_exchange "
                "or debate_pair; or pass --formats none)"
            ) from error

    def of_split(split: str, limit: int, *, needed: bool = True) -> Any:
        try:
            return load_task(
                task, o.task_options(task_option, data=data, limit=limit, split=split, seed=None)
            )
        except TaskError:
            if needed:
                raise
            return None

    provider, _, folder = model.partition("/")
    trained = export is None
    if trained:
        if provider not in ("hf", "vllm"):
            raise ConfigError(
                f"{model} can't be trained here; pass --model hf/FOLDER (or vllm/FOLDER), or --export FILE for "
                "rows to train on elsewhere"
            )
        require_trainable(folder, device)
    learn = of_split("learn", items)
    accepting = of_split("validate", validate, needed=config.accept == "better") if trained else None
    destination = out or Path("adapters") / f"{Path(task).stem}-{Path(graph).stem}-{method}"
    reader = open_readability(
        "off" if config.reward.loss_weight == 0 else readability, model, base_url=base_url
    )
    hear = (lambda text: None) if json else _note
    with Live("", show=not json) as progress:
        shown = ""

        def on_progress(name: str, state: Any) -> None:
            nonlocal shown
            if name != shown:
                shown = name
                progress.begin(name)
            progress(state)

        learning = Learning(
            graph_of,
            learn,
            learn.items,
            () if accepting is None else accepting.items,
            ModelRef.of(folder) if trained else ModelRef(model),
            TrlWorkshop(provider, device, hear, base_url, merge) if trained else Elsewhere(model),  # type: ignore[arg-type]
            destination,
            config,
            reader,
            options,
            None if json else on_progress,
            hear,
        )

        async def go() -> Any:
            if export is not None:
                return await learning.export(export)
            return await learning.run(iterations)

        try:
            result = anyio.run(go)
        finally:
            reader.close()
    if export is not None:
        if json:
            typer.echo(json_module.dumps(result))
        else:
            _exported(result, export, destination)
        return
    words = [
        w
        for flag, given in (("-T", task_option), ("-G", graph_option))
        for v in given or ()
        for w in (flag, v)
    ]
    words += [*(["--data", str(data)] if data else []), *(["--base-url", base_url] if base_url else [])]
    ending = None
    if result.adapter is not None:
        tail = ["--model", model, "--adapter", str(result.adapter)]
        ending = shlex.join(["agentcomm", "eval", graph, task, *words, *tail])
    if json:
        typer.echo(json_module.dumps({**result.to_dict(), "out": str(destination), "evaluate": ending}))
        return
    _show(result, destination, ending)


def _note(text: str) -> None:
    import sys

    sys.stderr.write(text + "\n")


def _exported(manifest: dict[str, Any], export: Path, out: Path) -> None:
    from rich.console import Console

    console = Console()
    console.print(_learned_from([manifest]))
    spent = sum(manifest["spent"].values())
    console.print(
        f"{manifest['funnel']['rows']} rows in {export}; {spent:,} tokens paid. Dialogues and what each was worth "
        f"are in {out}.",
        highlight=False,
        markup=False,
    )


def _learned_from(manifests: list[dict[str, Any]]) -> Any:
    from agentcomm.cli.tables import add, number, table

    failed, scored = any(m["failed"] for m in manifests), any(m["reward"]["nll"] for m in manifests)
    columns = ["dialogues", *(["failed"] if failed else []), "rows", "score", "tokens"]
    made = table("iter", "by", right=(*columns, *(["nll"] if scored else []), "reward", "paid"))
    for m in manifests:
        r = m["reward"]
        add(
            made,
            str(m["iteration"] + 1),
            m["training_method"] + ("*" if m["from_pool"] else ""),
            number(m["dialogues"]),
            *([number(m["failed"])] if failed else []),
            number(m["funnel"]["rows"]),
            number(r["task"], 2),
            number(r["tokens"]),
            *([number(r["nll"], 2)] if scored else []),
            number(r["total"], 3),
            number(sum(m["spent"].values())),
        )
    return made


def _show(result: Any, out: Path, ending: str | None) -> None:
    from rich.console import Console

    from agentcomm.cli.tables import add, number, table

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    say("Dialogues that were learned from (* with message formats), and the tokens paid for each iteration:")
    console.print(_learned_from(list(result.manifests)))
    compared = table("model", right=("score", "tokens", "all tokens", "reward", "difference", "paid back"))
    before: str | None = None
    for m in result.manifests:
        found = m["accept"]
        if found is None:
            continue
        if before is None:
            b = found["before"]
            add(
                compared,
                "untrained",
                *(
                    number(b[k], d)
                    for k, d in (("task", 2), ("tokens", 0), ("total_tokens", 0), ("total", 3))
                ),
                "",
                "",
            )
        before = m["model_in"]
        name = f"iter{m['iteration'] + 1}"
        if "after" not in found:
            add(compared, f"{name}: nothing learned", *[""] * 6)
            continue
        a, r, when = found["after"], found["reward"], found["break_even_items"]
        add(
            compared,
            name if found["accepted"] else f"{name}, not kept",
            *(number(a[k], d) for k, d in (("task", 2), ("tokens", 0), ("total_tokens", 0), ("total", 3))),
            f"{r['mean']:+.3f}" + ("" if r["low"] is None else f" [{r['low']:+.3f}, {r['high']:+.3f}]"),
            "never" if when is None else f"{when:,.0f} items",
        )
    if before is not None:
        items = next(m["accept"]["before"]["items"] for m in result.manifests if m["accept"])
        say(f"On {items} validate items, greedy; the difference is that of reward to the model before:")
        console.print(compared)
    for m in result.manifests:
        if m["nothing"]:
            say(f"Iteration {m['iteration'] + 1} learned nothing: {m['nothing']}.")
    say(f"{result.spent:,} tokens paid for learning. Everything is in {out}.")
    if ending is None:
        say("No trained model was better than the one before: keep the model as it is.")
    else:
        say(f"Evaluate it: {ending}")
