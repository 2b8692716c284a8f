"""Sweep: a grid of graphs, tasks, models and seeds, as one resumable experiment.

A TOML file names the axes (``examples/sweep.toml`` shows all of it)::

    graphs = ["single", "debate"]       # the first is the reference
    tasks  = ["gsm8k", "mmlu"]
    models = ["local/smollm2"]
    seeds  = [0, 1, 2]                  # default: [0]
    controls = "all"                    # or ["single", "vote"]; default: none

    [run]                               # options of every cell
    temperature = 0.7

An entry may be a table with options of its own. Every cell is a run directory, named after its
place in the grid and a hash of all that its results depend on: finished cells are not run again,
failed items are tried again, and a cell whose settings changed is a new one. Everything is read
and loaded before the first call, so that a mistake in the file costs nothing.

``controls`` run beside each cell, as ``agentcomm eval --controls`` runs them, and have a table of
their own: each against its team, over all seeds.

The table has one row for a task, model and graph, over all seeds. Differences are paired by item
and seed within the same task and model, the seeds of an item are one cluster, and p-values are
Holm's over all comparisons of the sweep.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.calls import Retry
from agentcomm.errors import AgentCommError, ConfigError, LedgerError
from agentcomm.evaluation.control_runs import (
    Controlled,
    OnRun,
    controls_finished,
    run_controls,
    validate_task,
)
from agentcomm.evaluation.controls import Control
from agentcomm.evaluation.controls import words as control_words
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Progress, Run, evaluate, run_config
from agentcomm.evaluation.rundir import RunDir
from agentcomm.evaluation.stats import (
    Interval,
    NonInferiority,
    PairedDifference,
    holm,
    mean_interval,
    non_inferiority,
    paired_bootstrap,
    sign_flip,
)
from agentcomm.graph import AgentGraph, Topology
from agentcomm.ledger.limits import Limits
from agentcomm.loading import cut_topology, load_graph, load_task
from agentcomm.message import content_id
from agentcomm.options import RunOptions
from agentcomm.schedule import Schedule
from agentcomm.task import Task

AXES = {"graphs": "graph", "tasks": "task", "models": "model"}
"""The axes, and the key of a table that says what an entry is."""

_GRAPH_KEYS = {"graph", "name", "options", "cut"}
_TASK_KEYS = {"task", "name", "options", "data", "split", "limit"}
_RUN_KEYS = {
    "temperature", "top_p", "max_tokens", "base_url", "api_key_env", "timeout", "concurrency", "retries",
    "executor", "samples", "prices", "cache", "run_limit", "item_limit", "agent_limit",
}  # fmt: skip
_MODEL_KEYS = {"model", "name"} | _RUN_KEYS - {"samples", "executor", "prices", "cache", "run_limit"}
_RENAMED = {
    "timeout": "timeout_s", "concurrency": "max_concurrency", "run_limit": "limits",
    "item_limit": "item_limits", "agent_limit": "agent_limits",
}  # fmt: skip
_LIMITS = ("tokens", "calls", "cost", "seconds")


@dataclass(frozen=True)
class GraphEntry:
    name: str
    graph: AgentGraph
    topology: Topology | None


@dataclass(frozen=True)
class ModelEntry:
    """``model=None``: every agent has one of its own."""

    name: str
    model: str | None
    options: RunOptions


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    task: str
    model: str
    seed: int
    graph: str
    path: Path
    work: Task = field(repr=False)
    entry: GraphEntry = field(repr=False)
    string: str | None
    options: RunOptions = field(repr=False)
    samples: int = 1
    controls: tuple[str, ...] = ()
    validate: Task | None = field(default=None, repr=False)
    """Items on which controls may be chosen."""

    @property
    def title(self) -> str:
        return f"{self.graph} on {self.task}, {self.model}, seed {self.seed}"

    @cached_property
    def calls(self) -> int:
        """Model calls it takes if nothing fails (channels' own and controls' not counted)."""
        turns = Schedule.of(self.entry.graph, self.entry.topology).turns
        models = sum(self.entry.graph.by_name[name].act is None for name, _ in turns)
        return models * len(self.work.items) * self.samples


@dataclass(frozen=True)
class Sweep:
    """A grid, checked and loaded: ``cells`` by task, model, seed and graph."""

    source: Path
    graphs: tuple[str, ...]
    cells: tuple[Cell, ...]

    @classmethod
    def load(cls, file: Path, out: Path) -> Sweep:
        """Read a TOML file; every graph, task and model in it is loaded.

        Raises
        ------
        UserError
            For anything that can't be run as written: one sentence, with the place in the file.
        """
        return _read(file, out)


@dataclass(frozen=True)
class CellResult:
    """What came of a cell and its controls; ``error`` is why it could not be run (to the end)."""

    cell: Cell
    run: Run | None
    error: str | None
    controls: Controlled | None = None

    @property
    def ok(self) -> bool:
        """Whether everything was run and nothing failed, its controls included."""
        return self.error is None and self.run is not None and not any(r.failed for r in self.runs)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its own run, and those of its controls."""
        own = () if self.run is None else (self.run,)
        return own if self.controls is None else (*own, *(r for _, r in self.controls.runs))

    def to_dict(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "task": cell.task,
            "model": cell.model,
            "seed": cell.seed,
            "graph": cell.graph,
            "path": str(cell.path),
            "ok": self.ok,
            "error": self.error,
            "summary": self.run.summary() if self.run is not None else None,
            **({"controls": _controls_dict(self.controls)} if self.controls is not None else {}),
        }


def _controls_dict(made: Controlled) -> dict[str, Any]:
    return {
        "runs": [{**run.summary(), "control": one.name, "note": one.note} for one, run in made.runs],
        "not_applicable": made.not_applicable,
        "single_chosen": made.chosen,
        "fixed_chosen": made.fixed,
    }


@dataclass(frozen=True)
class Row:
    """One graph on one task with one model, over all seeds.

    ``difference`` is score minus the reference graph's on the same items and seeds; ``None`` in the
    reference's own row. ``p_value`` is of a sign-flip test over items, ``p_holm`` Holm's over the sweep.
    Tokens and calls are means for an item; ``tokens_saved`` is a share of the reference's tokens.
    A row of a ``control`` is compared with its graph instead: ``difference`` is the control's score minus
    the graph's, ``p_holm`` is over all controls.
    """

    task: str
    model: str
    graph: str
    score: Interval
    by_seed: dict[int, float | None]
    items: int
    failed: int
    input_tokens: float | None
    output_tokens: float | None
    calls: float | None
    cost: float | None
    difference: PairedDifference | None = None
    verdict: NonInferiority | None = None
    p_value: float | None = None
    p_holm: float | None = None
    left_out: int = 0
    tokens_saved: float | None = None
    control: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# ------------------------------------------------------------------------------------ running


async def run_sweep(
    sweep: Sweep,
    *,
    on_cell: Callable[[int, Cell], Callable[[Progress], None] | None] | None = None,
    on_control: Callable[[int, Cell, str], Callable[[Progress], None] | None] | None = None,
) -> tuple[CellResult, ...]:
    """Run every cell, one after another (a cell fills the endpoint by itself).

    A cell that can't be run (a server that is down, say) doesn't stop the others. ``on_cell`` hears
    of the next cell; what it returns hears of its progress. ``on_control`` hears of the runs of its
    controls, by their titles, likewise.

    Raises
    ------
    LedgerError
        If nothing can be recorded any more.
    """
    results: list[CellResult] = []
    async with AsyncExitStack() as stack:
        loaded: str | None = None
        down: dict[str, str] = {}
        for number, cell in enumerate(sweep.cells):
            listener = on_cell(number, cell) if on_cell else None
            run: Run | None = None
            controlled: Controlled | None = None
            problem = down.get(cell.model)
            try:
                if problem is None and loaded != cell.model and not is_finished(cell):
                    await stack.aclose()  # at most one of our own models is loaded at a time
                    loaded = None
                    try:
                        await stack.enter_async_context(held(cell.string, cell.options))
                    except AgentCommError as error:
                        down[cell.model] = str(error)  # its other cells needn't wait for it again
                        raise
                    loaded = cell.model
                if problem is None:
                    run = await evaluate(
                        cell.entry.graph,
                        cell.work,
                        cell.string,
                        out=cell.path,
                        topology=cell.entry.topology,
                        samples=cell.samples,
                        name=cell.graph,
                        on_progress=listener,
                        options=cell.options,
                    )
                    problem = run.stopped
                    if cell.controls and problem is None:
                        heard = partial(on_control, number, cell) if on_control else None
                        controlled = await _control(cell, run, heard)
                        problem = next((r.stopped for _, r in controlled.runs if r.stopped), None)
            except LedgerError:
                raise
            except AgentCommError as error:
                problem = str(error)
            results.append(CellResult(cell, run, problem, controlled))
    return tuple(results)


async def _control(cell: Cell, run: Run, on_run: OnRun | None) -> Controlled:
    return await run_controls(
        run,
        cell.entry.graph,
        cell.work,
        cell.string,
        cell.controls,
        topology=cell.entry.topology,
        validate=cell.validate,
        samples=cell.samples,
        options=cell.options,
        on_run=on_run,
    )


def is_finished(cell: Cell) -> bool:
    """Whether every item of the cell and of its controls is done and none failed."""
    return RunDir(cell.path).is_finished() and controls_finished(cell.path, cell.controls)


# ------------------------------------------------------------------------------------ the table


def table(
    results: Sequence[CellResult], *, margin: float = 0.02, level: float = 0.95, seed: int = 0
) -> tuple[Row, ...]:
    """The rows of a sweep, by task, model and graph in the file's order.

    Parameters
    ----------
    margin:
        The loss of score that doesn't matter, for the non-inferiority verdict.
    level:
        Confidence of the intervals.
    seed:
        Of the bootstrap.
    """
    groups: dict[tuple[str, str], dict[str, list[CellResult]]] = {}
    for result in results:
        cell = result.cell
        groups.setdefault((cell.task, cell.model), {}).setdefault(cell.graph, []).append(result)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for graphs in groups.values():
        reference: _Side | None = None
        for cells in graphs.values():
            side = _Side(cells)
            row = side.row(level)
            if reference is not None:
                row = _against(row, side, reference, margin, level, rng)
            else:
                reference = side
            rows.append(row)
    adjusted = iter(holm([r.p_value for r in rows if r.p_value is not None]))
    return tuple(r if r.p_value is None else replace(r, p_holm=next(adjusted)) for r in rows)


def control_table(
    results: Sequence[CellResult], *, margin: float = 0.02, level: float = 0.95, seed: int = 0
) -> tuple[Row, ...]:
    """A row for each control of each graph, compared with that graph; parameters as for :func:`table`.

    A single agent or a fixed topology that was chosen on ``validate`` is one row, whichever it was
    with each seed.
    """
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for result in results:
        cell = result.cell
        groups.setdefault((cell.task, cell.model, cell.graph), []).append(result)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for cells in groups.values():
        team = _Side(cells)
        by_title: dict[str, list[CellResult]] = {}
        for c in cells:
            for one, run in c.controls.runs if c.controls is not None else ():
                by_title.setdefault(_title(one, run), []).append(replace(c, run=run, controls=None))
        for title, runs in by_title.items():
            side = _Side(runs)
            row = replace(side.row(level), control=title)
            rows.append(_against(row, side, team, margin, level, rng))
    adjusted = iter(holm([r.p_value for r in rows if r.p_value is not None]))
    return tuple(r if r.p_value is None else replace(r, p_holm=next(adjusted)) for r in rows)


def _title(one: Control, run: Run) -> str:
    return one.name if run.config["control"].get("chosen_on") else one.label


Key = tuple[int, str, int]
"""Seed, item, sample."""


@dataclass(frozen=True)
class _Side:
    """The cells of one graph on one task with one model."""

    cells: Sequence[CellResult]

    @cached_property
    def scores(self) -> dict[Key, float]:
        return {
            (c.cell.seed, e.item, e.sample): float(e.score)
            for c in self.cells
            if c.run is not None
            for e in c.run.episodes
            if e.status == "ok" and e.score is not None
        }

    @cached_property
    def tokens(self) -> dict[Key, int]:
        """What each episode's calls used, those answered from a cache not counted."""
        out: dict[Key, int] = {}
        for c in self.cells:
            if c.run is None:
                continue
            for e in c.run.episodes:
                out[(c.cell.seed, e.item, e.sample)] = 0
            for r in c.run.usage.rows:
                if not r.cache_hit and (key := (c.cell.seed, r.item, r.sample)) in out:
                    out[key] += (r.input_tokens or 0) + (r.output_tokens or 0)
        return out

    def row(self, level: float) -> Row:
        first, runs = self.cells[0].cell, [c.run for c in self.cells if c.run is not None]
        n = sum(len(run.episodes) for run in runs)
        costs = [run.usage.cost for run in runs]
        by_seed = {}
        for c in self.cells:
            own = [v for k, v in self.scores.items() if k[0] == c.cell.seed]
            by_seed[c.cell.seed] = sum(own) / len(own) if own else None
        return Row(
            task=first.task,
            model=first.model,
            graph=first.graph,
            score=mean_interval(
                list(self.scores.values()), clusters=[k[1] for k in self.scores], level=level
            ),
            by_seed=by_seed,
            items=len({k[1] for k in self.scores}),
            failed=sum(run.failed for run in runs),
            input_tokens=sum(run.usage.input_tokens for run in runs) / n if n else None,
            output_tokens=sum(run.usage.output_tokens for run in runs) / n if n else None,
            calls=sum(run.usage.calls for run in runs) / n if n else None,
            cost=None if not runs or None in costs else sum(c or 0.0 for c in costs),
        )


def _against(
    row: Row, side: _Side, reference: _Side, margin: float, level: float, rng: np.random.Generator
) -> Row:
    keys = [k for k in side.scores if k in reference.scores]
    a, b = [side.scores[k] for k in keys], [reference.scores[k] for k in keys]
    clusters = [k[1] for k in keys]
    both = [k for k in side.tokens if k in reference.tokens]
    ours, theirs = (sum(s.tokens[k] for k in both) for s in (side, reference))
    return replace(
        row,
        difference=paired_bootstrap(a, b, clusters=clusters, rng=rng, level=level),
        verdict=non_inferiority(a, b, clusters=clusters, rng=rng, margin=margin, level=level),
        p_value=sign_flip(a, b, clusters=clusters, rng=rng) if keys else None,
        left_out=len(both) - len(keys),
        tokens_saved=1 - ours / theirs if theirs else None,
    )


# ------------------------------------------------------------------------------ reading the file


def _read(file: Path, out: Path) -> Sweep:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{file} is not TOML: {error}") from error
    _known(data, {*AXES, "seeds", "run", "controls"}, str(file))
    controls = _controls(data, file)
    common = _table(data.get("run", {}), _RUN_KEYS, f"{file}: [run]")
    samples = common.pop("samples", 1)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ConfigError(f"{file}: [run] samples = {samples!r}: it must be a whole number of at least 1")
    seeds = _seeds(data, file)
    graphs = [_graph(e, file, where) for e, where in _axis(data, "graphs", _GRAPH_KEYS, file)]
    tasks = [_task(e, file, where) for e, where in _axis(data, "tasks", _TASK_KEYS, file)]
    models = _models(data, common, file, graphs)
    for axis, names in (
        ("graphs", [g.name for g in graphs]),
        ("tasks", [name for name, *_ in tasks]),
        ("models", [m.name for m in models]),
    ):
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ConfigError(
                f"{file}: two of the {axis} are called {twice[0]!r}; give one a name = of its own"
            )
    cells = tuple(
        replace(cell, controls=controls) for cell in _cells(out, graphs, tasks, models, seeds, samples)
    )
    return Sweep(file, tuple(g.name for g in graphs), cells)


def _cells(
    out: Path,
    graphs: Sequence[GraphEntry],
    tasks: Sequence[tuple[str, Task, Task | None]],
    models: Sequence[ModelEntry],
    seeds: Sequence[int],
    samples: int,
) -> Iterator[Cell]:
    # A model is loaded once: its cells lie together. Within it, a seed is whole before the next.
    for m in models:
        for task, work, validate in tasks:
            for seed in seeds:
                for g in graphs:
                    options = replace(m.options, seed=seed)
                    config = run_config(
                        g.graph, work, m.model, options, samples=samples, topology=g.topology, name=g.name
                    )
                    # With the names: slugs of two may be alike. Where the server is doesn't count.
                    digest = content_id(config, task, m.name)[:8]
                    path = out / _slug(f"{task}.{m.name}.seed{seed}.{g.name}", digest)
                    yield Cell(
                        task, m.name, seed, g.name, path, work, g, m.model, options, samples, (), validate
                    )


def _slug(name: str, digest: str) -> str:
    return re.sub(r"[^\w.]+", "-", name)[:100].strip("-") + f"-{digest}"


def _axis(data: Mapping[str, Any], axis: str, keys: set[str], file: Path) -> list[tuple[dict[str, Any], str]]:
    """The entries of an axis as tables, each with its place in the file."""
    key = AXES[axis]
    if axis not in data:
        raise ConfigError(f"{file} names no {axis}; write e.g. {axis} = [{_EXAMPLES[axis]}]")
    entries = data[axis]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file}: {axis} must be a list with at least one entry, e.g. [{_EXAMPLES[axis]}]")
    made: list[tuple[dict[str, Any], str]] = []
    for number, entry in enumerate(entries, 1):
        where = f"{file}: entry {number} of {axis}"
        entry = {key: entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict):
            raise ConfigError(f"{where} is {entry!r}; write a name or a table")
        _known(entry, keys, where)
        for word in (key, "name"):
            if word in entry and (not isinstance(entry[word], str) or not entry[word].strip()):
                raise ConfigError(f"{where}: {word} = {entry[word]!r} is not a name")
        if key not in entry:
            raise ConfigError(f"{where} says not which {key} it is; give it {key} = {_EXAMPLES[axis]}")
        made.append((entry, where))
    return made


_EXAMPLES = {"graphs": '"single"', "tasks": '"gsm8k"', "models": '"local/smollm2"'}


def _seeds(data: Mapping[str, Any], file: Path) -> list[int]:
    seeds = data.get("seeds", [0])
    if (
        not isinstance(seeds, list)
        or not seeds
        or any(isinstance(s, bool) or not isinstance(s, int) for s in seeds)
    ):
        raise ConfigError(f"{file}: seeds = {seeds!r}: write a list of whole numbers, e.g. [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{file}: seeds = {seeds!r} has one of them twice")
    return list(seeds)


def _controls(data: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    if "controls" not in data:
        return ()
    given = data["controls"]
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise ConfigError(f'{file}: controls = {given!r}: write "all" or a list such as ["single", "vote"]')
    made: tuple[str, ...] = _said(f"{file}: controls", lambda: control_words(",".join(listed)))
    return made


def _graph(entry: Mapping[str, Any], file: Path, where: str) -> GraphEntry:
    name = _beside(entry["graph"], file)
    options = _table(entry.get("options", {}), None, f"{where}: options")
    graph = _said(where, lambda: load_graph(name, options))
    cut = entry.get("cut", [])
    if not isinstance(cut, list) or not all(isinstance(c, str) for c in cut):
        raise ConfigError(f'{where}: cut = {cut!r}: write a list such as ["critic", "solver->judge"]')
    topology = _said(where, lambda: cut_topology(graph, cut)) if cut else None
    return GraphEntry(entry.get("name") or Path(entry["graph"]).stem, graph, topology)


def _task(entry: Mapping[str, Any], file: Path, where: str) -> tuple[str, Task, Task | None]:
    options = dict(_table(entry.get("options", {}), None, f"{where}: options"))
    for key in ("data", "split", "limit"):
        if key in entry:
            options[key] = entry[key]
    limit = options.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"{where}: limit = {limit!r}: it must be a whole number of at least 1")
    if isinstance(options.get("data"), str):
        options["data"] = _beside(options["data"], file)
    source = _beside(entry["task"], file)
    work = _said(where, lambda: load_task(source, options))
    return entry.get("name") or work.name, work, validate_task(source, options)


def _models(
    data: Mapping[str, Any], common: Mapping[str, Any], file: Path, graphs: Sequence[GraphEntry]
) -> list[ModelEntry]:
    if "models" not in data:
        for g in graphs:
            if without := [a.name for a in g.graph.agents if a.model is None and a.act is None]:
                raise ConfigError(
                    f"{file} names no models, and agent {without[0]!r} of graph {g.name!r} has none of its own; "
                    f"write e.g. models = [{_EXAMPLES['models']}]"
                )
        return [ModelEntry("own", None, _options(common, file, f"{file}: [run]"))]
    made: list[ModelEntry] = []
    for entry, where in _axis(data, "models", _MODEL_KEYS, file):
        own = {k: v for k, v in entry.items() if k not in ("model", "name")}
        options = _options({**common, **own}, file, where if own else f"{file}: [run]")
        string = entry["model"]
        provider, _, rest = string.partition("/")
        if provider in ("local", "scripted", "replay", "vllm") and rest:
            string = f"{provider}/{_beside(rest, file)}"
        # Opened, not asked: what is missing on this machine (a key, a file, a package) is said now.
        _said(where, partial(replace(options, cache=None).resolver(), string))
        made.append(ModelEntry(entry.get("name") or entry["model"], string, options))
    return made


def _options(values: Mapping[str, Any], file: Path, where: str) -> RunOptions:
    given = {_RENAMED.get(k, k): v for k, v in values.items()}
    for key in ("limits", "item_limits", "agent_limits"):
        if key in given:
            limits = _table(given[key], set(_LIMITS), f"{where}: {key.replace('limits', 'limit')}")
            if bad := [v for v in limits.values() if not _is_number(v) or v <= 0]:
                raise ConfigError(f"{where}: a limit of {bad[0]!r}; it must be a number above 0")
            given[key] = Limits(**limits)
    if "retries" in given:
        if not isinstance(given["retries"], int):
            raise ConfigError(f"{where}: retries = {given['retries']!r}: it must be a whole number")
        given["retry"] = Retry(attempts=given.pop("retries"))
    for key in ("prices", "cache"):
        if key in given:
            given[key] = file.parent / str(given[key])
    for key in ("temperature", "top_p", "timeout_s"):
        if key in given and not _is_number(given[key]):
            raise ConfigError(f"{where}: {key.removesuffix('_s')} = {given[key]!r}: it must be a number")
    for key in ("max_tokens", "max_concurrency"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int)):
            raise ConfigError(
                f"{where}: {key.removeprefix('max_') if key != 'max_tokens' else key} = {given[key]!r}: "
                f"it must be a whole number"
            )
    for key in ("base_url", "api_key_env", "executor"):
        if key in given and not isinstance(given[key], str):
            raise ConfigError(f"{where}: {key} = {given[key]!r}: it must be a text")
    made: RunOptions = _said(where, lambda: RunOptions(**given))
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _known(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    if strange := sorted(set(table) - keys):
        raise ConfigError(
            f"{where} has unknown keys: {', '.join(strange)}; it may have: {', '.join(sorted(keys))}"
        )


def _table(value: Any, keys: set[str] | None, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; write a table")
    if keys is not None:
        _known(value, keys, where)
    return dict(value)


def _beside(name: str, file: Path) -> str:
    """A path relative to the sweep's file, if there is something; else the name as it is."""
    path = file.parent / name
    return str(path) if path.exists() and ("/" in name or path.is_file()) else name


def _said(where: str, action: Callable[[], Any]) -> Any:
    """``action()``; what it complains of gets its place in the file."""
    try:
        return action()
    except AgentCommError as error:
        raise ConfigError(f"{where}: {error}") from error
