"""``agentcomm demo``: one team under several topologies on an embedded model, offline."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentcomm.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from agentcomm.evaluation.demo import Setting
    from agentcomm.evaluation.run import Progress, Run

    Done = list[tuple[Setting, Run]]


def demo(
    items: Annotated[int, typer.Option("--items", min=1, help="Items for each topology.")] = 20,
    seed: o.Seed = 0,
    model: Annotated[str, typer.Option("--model", "-m", help="The model of every agent.")] = "local/smollm2",
    base_url: o.BaseUrl = None,
    api_key_env: o.KeyEnv = "OPENAI_API_KEY",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the runs; with the same folder again it continues."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Run a team on generated questions under several topologies and show what cutting saves.

    Needs no network, key or GPU: the model (SmolLM2, 135M parameters) runs in this process. About
    four minutes on two cores. The picture and the runs stay in the folder that is printed.
    """
    import anyio
    from rich.console import Console

    from agentcomm.cli.live import Live
    from agentcomm.evaluation.demo import run_demo
    from agentcomm.options import RunOptions

    folder = out or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    console = Console(highlight=False)
    began = time.monotonic()
    if not json:
        console.print(
            f"[bold]{items} questions[/], a team of specialists who each know a part of the facts, and a judge. "
            f"Model: {model}.",
        )
    with Live("", show=not json) as bar:

        def on_setting(setting: Setting) -> Callable[[Progress], None]:
            bar.begin(f"{setting.name:9} {setting.note}")
            return bar

        async def go() -> Done:
            return await run_demo(
                folder,
                items=items,
                seed=seed,
                model=model,
                options=RunOptions(seed=seed, base_url=base_url, api_key_env=api_key_env),
                on_setting=on_setting,
            )

        try:
            done = anyio.run(go)
        except KeyboardInterrupt:
            sys.stderr.write(
                f"interrupted; agentcomm demo --items {items} --seed {seed} --out {folder} continues\n"
            )
            raise typer.Exit(130) from None
    picture = folder / "picture.svg"
    picture.write_text(draw_picture(done), encoding="utf-8")
    if json:
        rows = [{**run.summary(), "topology": setting.name} for setting, run in done]
        typer.echo(json_module.dumps({"settings": rows, "picture": str(picture)}, ensure_ascii=False))
    else:
        show(console, done, folder, picture, time.monotonic() - began)
    raise typer.Exit(1 if any(run.failed or run.stopped for _, run in done) else 0)


def show(console: Console, done: Done, folder: Path, picture: Path, seconds: float) -> None:
    """The table, who talked to whom, and what can be said about it."""
    from agentcomm.cli.compare import sentence
    from agentcomm.cli.tables import number, table
    from agentcomm.evaluation.compare import compare

    made = table("topology", "who reads whom", right=("score", "95%", "input", "output", "calls", "saved"))
    whole = _tokens(done[0][1])
    for setting, run in done:
        summary = run.summary()
        score, tokens = summary["score"], summary["tokens"]
        saved = 1 - _tokens(run) / whole if whole else None
        made.add_row(
            setting.name,
            setting.note,
            number(score["mean"], 2),
            "–" if score["low"] is None else f"{score['low']:.2f}–{score['high']:.2f}",
            number(tokens["input"]),
            number(tokens["output"]),
            number(summary["calls"]),
            "–" if saved is None else f"{saved:.0%}",
        )
    console.print(made)
    for setting, run in done:
        if setting.name in ("complete", "routed"):
            console.print(matrix(setting, run))
    runs = [run.path for _, run in done if run.path is not None]
    if len(runs) > 1:
        for against in compare(runs).against:
            console.print(sentence(against, done[0][0].name))
    console.print(
        f"\n{seconds:.0f} s. Who talked to whom, in colour: {picture}\n"
        f"Every call: agentcomm ledger {folder}/{done[0][0].name} --by call",
        markup=False,
    )


def matrix(setting: Setting, run: Run) -> Any:
    """Who reads whom: rows speak, columns read; tokens that the reader paid."""
    from agentcomm.cli.tables import table

    edges = run.usage.by_edge()
    names = setting.graph.names
    readers = [n for n in names if any(e.reader == n for e in setting.graph.edges)]
    made = table(f"{setting.name}: speaks, is read by", right=tuple(readers))
    for sender in names:
        cells = []
        for reader in readers:
            exists = any(e.sender == sender and e.reader == reader for e in setting.graph.edges)
            tokens = edges.get(f"{sender}->{reader}", 0)
            cells.append(f"{tokens:,}" if tokens else "cut" if exists else "")
        if any(cells):
            made.add_row(sender, *cells)
    return made


def draw_picture(done: Done) -> str:
    """All settings as one SVG, edges as wide as their tokens."""
    from agentcomm.evaluation.picture import Panel, draw

    whole = _tokens(done[0][1])
    panels: list[Panel] = []
    for setting, run in done:
        score = run.summary()["score"]["mean"]
        saved = 1 - _tokens(run) / whole if whole else 0.0
        note = (
            f"score {score:.2f}, {_tokens(run):,} tokens ({-saved:+.0%})" if score is not None else "no score"
        )
        edges, topology = run.usage.by_edge(), setting.topology
        if callable(topology):  # chosen item by item: drawn is what any item used
            used = [e for e in setting.graph.edges if str(e.key) in edges]
            topology = setting.graph.topology(agents=run.usage.by_agent(), edges=used)
        panels.append(Panel(setting.name, note, setting.graph, edges, topology))
    return draw(panels)


def _tokens(run: Run) -> int:
    return run.usage.input_tokens + run.usage.output_tokens
