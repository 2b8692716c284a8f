"""Control runs: a run's controls beside it, and what a comparison still lacks.

    runs/debate/                     the run; its controls.json says what was run and what can't be
    runs/debate-single/  ...         one run directory for each control, beside it
    runs/debate-validate-solver/     single agents on ``validate``, to choose the best among them
    runs/debate-validate-fixed-star/ fixed topologies on ``validate``, likewise

**The single agent** is chosen where that is no cheating: each agent that differs is run alone on
items of ``validate``; the highest score wins, ties go to the one listed first. Where the task has
no such items, every one of them is run on the items themselves and none is chosen; self-consistency
then asks the decision agent.

**The fixed topology** is chosen in the same way; without items of ``validate`` there is none. So are
the thresholds of the untrained network, which stay at 0.5 where there is nothing to choose on.

**Self-consistency** asks that agent as often as its tokens fit into the team's mean tokens for an
item, both measured here; ``self_consistency_calls`` as often as the team makes calls.

What was measured or chosen once stays when the run is continued: it is in controls.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentcomm.backends.base import Backend
from agentcomm.errors import ConfigError, GraphError, TaskError
from agentcomm.evaluation.controls import (
    DRAWS,
    LEARNED,
    MANDATORY,
    UNTRAINED,
    Control,
    control,
    identity,
    shape,
    singles,
)
from agentcomm.evaluation.run import Progress, Run, TopologyOf, evaluate
from agentcomm.evaluation.rundir import RunDir, plain, read_json, write_json
from agentcomm.graph import Agent, AgentGraph
from agentcomm.loading import load_task
from agentcomm.options import RunOptions
from agentcomm.task import Task

NOTES = "controls.json"
VALIDATE_ITEMS = 100
"""Items of ``validate`` at most on which the single agent and the fixed topology are chosen."""

OnRun = Callable[[str], Callable[[Progress], None] | None]


@dataclass(frozen=True)
class Controlled:
    """The controls that were run, in order, and why others can't be."""

    runs: tuple[tuple[Control, Run], ...]
    not_applicable: dict[str, str]
    chosen: str | None
    """How the single agent was chosen, in words; ``None`` if it was not."""
    fixed: str | None = None
    """Likewise the fixed topology."""


async def run_controls(
    reference: Run,
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None,
    wanted: Sequence[str],
    *,
    topology: TopologyOf = None,
    validate: Task | None = None,
    samples: int = 1,
    options: RunOptions | None = None,
    on_run: OnRun | None = None,
) -> Controlled:
    """Run the ``wanted`` controls of a finished run in directories beside it; resumable.

    Parameters
    ----------
    reference:
        The team's own run, with a directory, under the same arguments.
    validate:
        Items on which the single agent and the fixed topology may be chosen; ``None`` if there are none.
    on_run:
        Hears of the next run's title; what it returns hears of its progress.

    Raises
    ------
    UserError
        As :func:`~agentcomm.evaluation.run.evaluate` does. What a graph or task rules out is no error.
    """
    if reference.path is None:
        raise ConfigError("controls are run beside a run's directory; give the run one (--out)")
    runner = _Runner(
        reference,
        reference.path,
        graph,
        task,
        model,
        topology,
        validate,
        samples,
        RunOptions.of(options),
        on_run,
    )
    return await runner.run(wanted)


@dataclass
class _Runner:
    reference: Run
    path: Path
    graph: AgentGraph
    task: Task
    model: str | Backend | None
    topology: TopologyOf
    validate: Task | None
    samples: int
    options: RunOptions
    on_run: OnRun | None
    done: list[tuple[Control, Run]] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.of = identity(plain(self.reference.config))
        self.notes = _notes(self.path, self.of)

    async def run(self, wanted: Sequence[str]) -> Controlled:
        for name in wanted:
            if self.reference.stopped or any(run.stopped for _, run in self.done):
                break
            try:
                await self._run(name)
            except (GraphError, TaskError) as error:
                if not isinstance(error, _Ruled):
                    raise
                self.not_applicable[name] = str(error)
            self._keep()
        return Controlled(
            tuple(self.done), self.not_applicable, self.notes.get("chosen"), self.notes.get("fixed chosen")
        )

    async def _run(self, name: str) -> None:
        if name == "single":
            await self._single()
            return
        if name == "fixed":
            await self._fixed()
            return
        if name == UNTRAINED:
            await self._untrained()
            return
        more: dict[str, Any] = {"topology": self.topology, "seed": self.options.seed}
        if name.startswith("self_consistency"):
            # Ruled out before anything is paid for it.
            _made(name, self.graph, self.task, samples=1)
            agent = await self._who()
            count = await self._how_often(name, agent)
            more = {"agent": agent, "samples": count, "temperature": self.options.temperature}
        for one in _made(name, self.graph, self.task, **more):
            if (await self._evaluate(one)).stopped:
                break

    # -- the single agent ------------------------------------------------------------------------

    async def _single(self) -> None:
        candidates = _made("single", self.graph, self.task)
        best = await self._choose(candidates)
        for one in candidates if best is None else (best,):
            if not any(c.label == one.label for c, _ in self.done):
                await self._evaluate(one, chosen_on=self._chosen_on)

    @property
    def _chosen_on(self) -> str | None:
        return "validate" if "single" in self.notes else None

    async def _choose(self, candidates: Sequence[Control]) -> Control | None:
        """The agent that is best on ``validate``; ``None`` where there is nothing to choose on."""
        by_agent = {str(c.details["agent"]): c for c in candidates}
        best = await self._best("single", "the single agent", by_agent)
        return None if best is None else by_agent[best]

    async def _best(
        self, what: str, called: str, by_name: Mapping[str, Control], mark: str = ""
    ) -> str | None:
        """Which of the candidates is best on ``validate``; noted, so that it stays."""
        if len(by_name) == 1:
            return next(iter(by_name))
        if (known := self.notes.get(what)) in by_name:
            return str(known)
        if self.validate is None or _overlap(self.validate, self.task):
            return None
        scores: dict[str, float] = {}
        for name, one in by_name.items():
            run = await evaluate(
                one.graph,
                self.validate,
                self.model,
                topology=one.topology,
                out=_beside(self.path, f"validate-{mark}{name}"),
                name=f"{one.label} on validate",
                options=self.options,
                on_progress=self.on_run(f"choosing {called}: {name}") if self.on_run else None,
            )
            if run.stopped:
                raise ConfigError(
                    f"choosing {called} stopped early: {run.stopped}; raise the limit and repeat the command"
                )
            # A failure is no wrong answer, but who can't answer is not to be chosen either.
            scores[name] = sum(e.score or 0.0 for e in run.episodes) / run.items
        best = max(scores, key=lambda name: scores[name])  # the first of equals
        shown = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
        self.notes[what] = best
        self.notes["chosen" if what == "single" else f"{what} chosen"] = (
            f"{best}, on {len(self.validate.items)} items of validate ({shown})"
        )
        self._keep()
        return best

    async def _fixed(self) -> None:
        by_name = {str(c.details["topology"]): c for c in _made("fixed", self.graph, self.task)}
        best = await self._best("fixed", "the fixed topology", by_name, "fixed-")
        if best is None:
            raise _Ruled(
                "the task has no items of validate, on which the best fixed topology could be chosen"
            )
        one = by_name[best]
        if self.topology is None and shape(one.graph) == shape(self.graph):
            raise _Ruled(f"the team itself is the best fixed topology, {best}")
        await self._evaluate(one, chosen_on="validate" if "fixed" in self.notes else None)

    async def _untrained(self) -> None:
        usable = self.validate is not None and not _overlap(self.validate, self.task)
        items = self.validate.items if self.validate is not None and usable else ()
        candidates = _made(UNTRAINED, self.graph, self.task, topology=self.topology, items=items)
        by_name = {str(c.details["keeps"]): c for c in candidates}
        best = await self._best(UNTRAINED, "the untrained network's thresholds", by_name, "untrained-")
        assert best is not None  # several candidates only where there are items to choose on
        await self._evaluate(by_name[best], chosen_on="validate" if UNTRAINED in self.notes else None)

    async def _who(self) -> Agent:
        """Whom self-consistency asks."""
        candidates = singles(self.graph, allow_itself=True)
        best = await self._choose(candidates)
        if best is None:
            by_agent = {c.details["agent"]: c for c in candidates}
            best = by_agent.get(self.graph.decision, candidates[-1])
        return best.graph.agents[0]

    async def _how_often(self, name: str, agent: Agent) -> int:
        if isinstance(known := self.notes.get(name), int) and self.notes.get(f"{name} of") == agent.name:
            return known
        team_calls, team_tokens = _per_episode(self.reference)
        count = max(1, round(team_calls))
        if name == "self_consistency":
            one = next(c for c in singles(self.graph, allow_itself=True) if c.details["agent"] == agent.name)
            alone = next((run for c, run in self.done if c.label == one.label), None)
            if alone is None and len(self.graph.agents) == 1:
                alone = self.reference
            if alone is None:
                # One sample's tokens have to be measured: that is the control ``single``.
                alone = await self._evaluate(one, chosen_on=self._chosen_on)
            _, tokens = _per_episode(alone)
            if team_tokens and tokens:
                count = max(1, int(team_tokens / tokens))
        self.notes[name], self.notes[f"{name} of"] = count, agent.name
        self._keep()
        return count

    # -- one run ----------------------------------------------------------------------------------

    async def _evaluate(self, one: Control, **more: Any) -> Run:
        mark = {"of": self.of, "name": one.name, **one.details, **more}
        run = await evaluate(
            one.graph,
            self.task,
            self.model,
            out=_beside(self.path, one.label),
            topology=one.topology,
            samples=self.samples,
            name=one.label,
            control=mark,
            options=self.options,
            on_progress=self.on_run(f"{one.label}: {one.note}") if self.on_run else None,
        )
        self.done.append((one, run))
        return run

    def _keep(self) -> None:
        runs = self.notes.setdefault("runs", [])
        runs += [run.path.name for _, run in self.done if run.path and run.path.name not in runs]
        ruled = {**self.notes.get("not_applicable", {}), **self.not_applicable}
        done = {c.name for c, _ in self.done}
        self.notes["not_applicable"] = {k: v for k, v in ruled.items() if k not in done}
        write_json(self.path / NOTES, {**self.notes, "of": self.of})


class _Ruled(GraphError, TaskError):
    """A control that the graph or the task rules out."""


def _made(name: str, graph: AgentGraph, task: Task, **more: Any) -> tuple[Control, ...]:
    try:
        return control(name, graph, task, **more)
    except (GraphError, TaskError) as error:
        raise _Ruled(str(error)) from error


def _per_episode(run: Run) -> tuple[float, float]:
    """Mean calls and tokens of a finished episode; replies from a cache count as what they would cost."""
    ok = {(e.item, e.sample) for e in run.episodes if e.status == "ok"}
    rows = [r for r in run.usage.rows if (r.item, r.sample) in ok and r.error_kind is None]
    if not ok:
        return 0.0, 0.0
    tokens = sum((r.input_tokens or 0) + (r.output_tokens or 0) for r in rows)
    return len(rows) / len(ok), tokens / len(ok)


def validate_task(task: str, loaded_with: Mapping[str, Any]) -> Task | None:
    """The ``validate`` items of a task whose ``score`` items are run; ``None`` if it has none."""
    if loaded_with.get("split", "score") != "score":
        return None
    limit = min(VALIDATE_ITEMS, loaded_with.get("limit") or VALIDATE_ITEMS)
    try:
        return load_task(task, {**loaded_with, "split": "validate", "limit": limit})
    except TaskError:
        return None


def controls_finished(path: Path, wanted: Sequence[str]) -> bool:
    """Whether each wanted control of a run was run to the end without failures, or can't be."""
    if not wanted:
        return True
    done: dict[str, bool] = {}
    for directory in map(RunDir, control_paths(path)):
        name = directory.config()["control"]["name"]
        done[name] = done.get(name, True) and directory.is_finished()
    ruled = _notes(path, identity(RunDir.open(path).config())).get("not_applicable", {})
    return all(done.get(name, name in ruled) for name in wanted)


def _overlap(a: Task, b: Task) -> bool:
    return not {i.content_hash for i in a.items}.isdisjoint(i.content_hash for i in b.items)


def _beside(path: Path, label: str) -> Path:
    path = path if path.name else path.resolve()
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
    return path.with_name(f"{path.name}-{safe}")


def _notes(path: Path, of: str) -> dict[str, Any]:
    """What is known of a run's controls; nothing if it is of another configuration."""
    file = path / NOTES
    if not file.exists():
        return {}
    try:
        notes = read_json(file)
    except ConfigError:  # cut off or damaged: everything in it can be found again
        return {}
    return notes if notes.get("of") == of else {}


# ------------------------------------------------------------------------ what a comparison lacks


@dataclass(frozen=True)
class ControlReport:
    """Which mandatory controls of ``run`` a comparison has, lacks, and can't have (with reasons)."""

    run: str
    present: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, str]
    not_applicable: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing mandatory is missing."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "complete": self.complete,
            "present": {name: list(runs) for name, runs in self.present.items()},
            "missing": dict(self.missing),
            "not_applicable": dict(self.not_applicable),
        }

    def __str__(self) -> str:
        lines = [f"controls of {self.run}: {', '.join(self.present) or 'none'}"]
        if self.missing:
            lines.append("this report lacks mandatory controls, so communication can't be given the credit:")
            lines += [f"  {name}: {reason}" for name, reason in self.missing.items()]
        lines += [f"  {name}: not applicable: {reason}" for name, reason in self.not_applicable.items()]
        return "\n".join(lines)


def control_paths(path: Path) -> list[Path]:
    """The control runs that stand beside a run, as its controls.json lists them."""
    directory = RunDir.open(path)
    notes = _notes(path, identity(directory.config()))
    beside = (path if path.name else path.resolve()).parent
    runs = [beside / name for name in notes.get("runs", []) if isinstance(name, str)]
    return [p for p in runs if RunDir(p).config_path.exists() and RunDir(p).ledger_path.exists()]


def is_learned(path: Path) -> bool:
    """Whether a policy, or another function of the item, chose a run's topologies.

    Raises
    ------
    ConfigError
        If it is no run.
    """
    return _is_learned(RunDir.open(path).config())


def check_controls(paths: Sequence[Path]) -> ControlReport:
    """What the comparison of these runs has and lacks; about the run that has most of its controls here.

    Raises
    ------
    ConfigError
        If one of them is no run.
    """
    configs = {p: RunDir.open(p).config() for p in paths}
    claims = [p for p in paths if "control" not in configs[p]] or [paths[0]]
    own = {p: identity(configs[p]) for p in claims}

    def controls_of(path: Path) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for p, config in configs.items():
            mark = config.get("control")
            if isinstance(mark, dict) and mark.get("of") == own[path]:
                found.setdefault(str(mark.get("name")), []).append(p)
        return found

    # Of equals one with a policy, then the first.
    claim = max(claims, key=lambda p: (len(controls_of(p)), _is_learned(configs[p])))
    found = controls_of(claim)
    if "self_consistency_calls" in found:
        found.setdefault("self_consistency", []).extend(found.pop("self_consistency_calls"))
    notes = _notes(claim, own[claim])
    mandatory = (*MANDATORY, *(LEARNED if _is_learned(configs[claim]) else ()))
    ruled = {k: v for k, v in notes.get("not_applicable", {}).items() if k in mandatory and k not in found}
    missing: dict[str, str] = {}
    for name in mandatory:
        if name in ruled:
            continue
        if reason := _lacking(name, [configs[p]["control"] for p in found.get(name, [])]):
            missing[name] = reason
    present = {
        n: tuple(p.name or str(p) for p in found[n]) for n in mandatory if n in found and n not in missing
    }
    return ControlReport(claim.name or str(claim), present, missing, ruled)


def _lacking(name: str, marks: Sequence[Mapping[str, Any]]) -> str:
    """What is wanting in the control runs of one name; '' if nothing is."""
    if not marks:
        if name == UNTRAINED:
            return "the same policy with its initial weights was not run; agentcomm eval ... --controls untrained"
        return f"not run; agentcomm eval ... --controls {name}"
    if name == "single" and not any(m.get("chosen_on") for m in marks):
        agents = {m.get("agent") for m in marks}
        wanted = max(int(m.get("candidates", 1)) for m in marks)
        if len(agents) < wanted:
            return f"{len(agents)} of {wanted} agents were run alone, and none was chosen on validate"
    if name == "random" and (draws := len({m.get("seed") for m in marks})) < DRAWS:
        return f"{draws} random DAGs of at least {DRAWS}"
    return ""


def _is_learned(config: Mapping[str, Any]) -> bool:
    topology = config.get("topology")
    return topology is not None and not (isinstance(topology, dict) and "masks" in topology)
