"""Fitting: a policy by the name of its method, from a graph and a task.

    policy = fit(graph, task, method="agp", model="vllm/...", rollouts=600, out="policies/math")
    topology = policy(item)

Learns on ``learn`` items only; ``validate`` items are never run, only asked about. A budget of
rollouts is divided before anything is paid: a share measures the whole team (which says what
tokens are worth), the same share measures what came of it, the rest is the learner's. With a
folder, everything paid for is kept in its ``learning``, and the same call goes on after any
interruption (:mod:`agentcomm.pruning.runner`).

Methods are found by name and imported when they are used, so that listing them needs no torch.

Deliberately absent: any method.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from agentcomm.errors import ConfigError, MissingExtraError, TaskError
from agentcomm.evaluation.splits import hash_of, split_of
from agentcomm.graph import AgentGraph
from agentcomm.options import RunOptions, model_name
from agentcomm.pruning.environment import Budget, Environment, Metered, TopologyLearner
from agentcomm.pruning.pool import DecisionScope, EdgeChoice, Pool
from agentcomm.task import Item, Task

if TYPE_CHECKING:
    from agentcomm.backends.base import Backend
    from agentcomm.pruning.embeddings import Embedder
    from agentcomm.pruning.policy import Policy
    from agentcomm.pruning.runner import LearnProgress, RealEnvironment, Reference
    from agentcomm.pruning.savings import Savings

ROLLOUTS = 300
"""A real team's budget where none is given: what is affordable, not what every method needs."""

LEAST = 6
"""Rollouts of a real team at least."""

MEASURED = 6
"""One in so many rollouts measures the whole team, and as many what the policy made of it."""

ITEMS = 200
"""``learn`` items at most, where nobody says how many."""


class About(NamedTuple):
    """A method: where it is, how many rollouts it needs, and what it does in a few words."""

    module: str
    needs: int | None
    """Rollouts to a good policy on the standard planted world; ``None`` for those that don't learn."""
    words: str


ABOUT: Mapping[str, About] = {
    "frugal": About("frugal", 3_000, "few rollouts: a value model chooses what to try next"),
    "agp": About("agp", 38_400, "Adaptive Graph Pruning: agents and edges for each item"),
    "gdesigner": About("gdesigner", 19_200, "G-Designer: edges for each item, all agents kept"),
    "gptswarm": About("static", 4_800, "GPTSwarm's REINFORCE: one graph for all items"),
    "agentprune": About("static", 3_200, "AgentPrune: one graph, sparse by a nuclear norm, pruned once"),
    "agentdropout": About("static", 4_800, "AgentDropout: agents, then edges, round by round"),
    "random": About("fixed", None, "random edges: what learning has to beat"),
    "none": About("fixed", None, "the whole team"),
}
"""Every method by name, the one for few rollouts first."""

_UNKNOWN = About("", 0, "")
_ELSEWHERE = ("dropout", "agentdropout", "agentprune", "gptswarm", "reinforce", "static", "fixed", "agp")
"""Modules that a method may also be in."""


class _Methods(Mapping[str, type[Any]]):
    """Name -> learner class, imported on the way."""

    def __getitem__(self, name: str) -> type[Any]:
        if name not in ABOUT:
            raise KeyError(name)
        found = _find(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(ABOUT)

    def __len__(self) -> int:
        return len(ABOUT)

    def __repr__(self) -> str:
        return f"<methods: {', '.join(ABOUT)}>"


METHODS: Mapping[str, type[Any]] = _Methods()
"""Learner classes by name; each is imported when it is looked up."""


def _find(name: str) -> type[Any] | None:
    for module in dict.fromkeys((ABOUT[name].module, *_ELSEWHERE)):
        whole = f"agentcomm.pruning.{module}"
        try:
            room = importlib.import_module(whole)
        except ModuleNotFoundError as error:
            if error.name == whole:
                continue
            raise MissingExtraError(
                f"method {name!r} needs {error.name}, which is not installed; pip install 'agentcomm[learn]'"
            ) from error
        for thing in vars(room).values():
            if isinstance(thing, type) and getattr(thing, "name", None) == name and hasattr(thing, "fit"):
                return thing
    return None


def learner(
    method: str | TopologyLearner,
    *,
    seed: int = 0,
    embedder: Embedder | str | None = None,
    settings: Mapping[str, Any] | None = None,
    usual: bool = False,
    note: Callable[[str], None] | None = None,
) -> Any:
    """The learner called ``method`` with its settings; a learner as it is.

    Parameters
    ----------
    embedder:
        For methods that look at questions; a word is looked up
        (:func:`agentcomm.pruning.embeddings.embedder`).
    usual:
        Whether such a method gets the usual embedder where none is given, instead of its own default.
    note:
        Hears which one that is, if it makes a difference.

    Raises
    ------
    ConfigError
        For an unknown method, an unknown setting or one it can't use.
    MissingExtraError
        If its packages are not installed.
    """
    if not isinstance(method, str):
        if not hasattr(method, "fit"):
            raise ConfigError(
                f"{method!r} is no learner; give one of {', '.join(ABOUT)}, or an object with fit"
            )
        if settings:
            raise ConfigError(f"settings {', '.join(sorted(settings))} beside a learner; give them to it")
        return method
    if method not in ABOUT:
        raise ConfigError(f"unknown method {method!r}; there are: {', '.join(ABOUT)}")
    made = _find(method)
    if made is None:
        raise ConfigError(f"method {method!r} is not part of this agentcomm; update it")
    known = {f.name for f in dataclasses.fields(made) if f.init}
    given = dict(settings or {})
    if strange := sorted(set(given) - known):
        raise ConfigError(
            f"method {method!r} has no setting {', '.join(map(repr, strange))}; it has: "
            f"{', '.join(sorted(known - {'seed', 'embedder'})) or 'none'}"
        )
    if "seed" in known:
        given.setdefault("seed", seed)
    if "embedder" in known and "embedder" not in given and (usual or embedder is not None):
        from agentcomm.pruning.embeddings import embedder as named

        if embedder is None or isinstance(embedder, str):
            embedder = named(embedder, note=note)
        given["embedder"] = embedder
    try:
        return made(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"method {method!r} can't be used with {given}: {error}") from error


# ------------------------------------------------------------------------------------ learning


@dataclass(frozen=True)
class Learned:
    """A policy and what came of it; ``reference`` and ``savings`` only where a real team was run."""

    policy: Policy
    reference: Reference | None = None
    savings: Savings | None = None


async def learn(
    graph: AgentGraph,
    task: Task | str,
    method: str | TopologyLearner = "agp",
    *,
    model: str | Backend | None = None,
    rollouts: int | None = None,
    tokens: int | None = None,
    cost: float | None = None,
    seed: int = 0,
    edges: EdgeChoice = "graph",
    decision_scope: DecisionScope = "all",
    price: float = 0.2,
    embedder: Embedder | str | None = None,
    out: Path | str | None = None,
    records: Path | str | None = None,
    draws: int = 1,
    limit: int | None = None,
    validate: Task | Sequence[Item] | None = None,
    environment: Environment | None = None,
    on_progress: Callable[[LearnProgress], None] | None = None,
    options: RunOptions | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Learned:
    """Learn a policy, and measure what it saves; see :func:`fit_async`."""
    for name, value in (("rollouts", rollouts), ("tokens", tokens), ("cost", cost), ("limit", limit)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name}={value}; it must be above 0")
    if rollouts is not None and rollouts < LEAST and environment is None:
        raise ConfigError(f"{rollouts} rollouts are too few to measure and to learn; give at least {LEAST}")
    made = learner(
        method,
        seed=seed,
        embedder=embedder,
        settings=settings,
        usual=environment is None,
        note=RunOptions.of(options).note,
    )
    name = method if isinstance(method, str) else getattr(made, "name", type(made).__name__)
    work, items, held_out = _items(task, validate, limit)
    if environment is not None:
        metered = Metered(environment, Budget(rollouts, tokens, cost))
        policy = await made.fit(items, metered, metered.budget)
        _finish(policy, items, {"rollouts": metered.rollouts}, getattr(environment, "id", None))
        if out is not None:
            policy.save(out)
        return Learned(policy)

    from agentcomm.pruning.runner import REFERENCE_ITEMS, RealEnvironment
    from agentcomm.pruning.savings import measure

    with ExitStack() as stack:
        folder = Path(out) / "learning" if out is not None else Path(stack.enter_context(_temporary()))
        real = RealEnvironment(
            Pool(graph, edges, decision_scope),
            work,
            items,
            model,
            folder,
            price=price,
            origin={"method": name, "seed": seed, "settings": _plain(made)},
            records=records,
            draws=draws,
            tokens=tokens,
            cost=cost,
            on_progress=on_progress,
            options=options,
        )
        async with real:
            real.progress.doing = "measuring the whole team"
            if rollouts is None and tokens is not None:
                rollouts = await _affordable(real, tokens)
            rollouts = ROLLOUTS if rollouts is None else rollouts
            real.progress.total = rollouts
            needs = ABOUT.get(name, _UNKNOWN).needs
            share = 2 if needs is None else MEASURED
            reference = await real.measure(max(1, min(REFERENCE_ITEMS, len(items), rollouts // share)))
            left = rollouts - real.spent.rollouts - len(reference.items)
            real.progress.doing = "learning"
            if _takes_records(made):
                made = dataclasses.replace(made, records=(*made.records, *real.known()))
            metered = Metered(real, Budget(left))
            policy = await made.fit(items, metered, metered.budget)
            real.progress.doing = "measuring the policy"
            by_id = {item.id: item for item in items}
            measured = [by_id[i] for i in reference.items if i in by_id]
            savings = await measure(real, policy, measured, held_out)
            spent = real.spent
            _finish(policy, items, spent.to_dict(), model_name(model))
            if needs and left < needs / 2:
                few = f"{left:,} rollouts to learn from; on the standard planted world {name} needs about {needs:,}"
                policy.card = dataclasses.replace(policy.card, notes=(*policy.card.notes, few))
            if out is not None:
                policy.save(out)
    return Learned(policy, reference, savings)


async def fit_async(
    graph: AgentGraph, task: Task | str, method: str | TopologyLearner = "agp", **options: Any
) -> Policy:
    """Learn a policy, from within an event loop; as :func:`fit`."""
    return (await learn(graph, task, method, **_settings(options))).policy


def fit(graph: AgentGraph, task: Task | str, method: str | TopologyLearner = "agp", **options: Any) -> Policy:
    """Learn which agents and which edges each item needs.

    Parameters
    ----------
    graph:
        The team.
    task:
        A task's name, or a :class:`Task` loaded with ``split="learn"``.
    method:
        One of :data:`METHODS`, or a learner of your own
        (:class:`~agentcomm.pruning.environment.TopologyLearner`).
    model:
        As for :func:`agentcomm.evaluate`.
    rollouts, tokens, cost:
        What may be spent, measuring included. Rollouts are exact (300 if nothing is given); where
        only tokens are limited, as many rollouts are planned as the whole team could make. Tokens
        and US dollars stop learning where they are spent; the same call with more goes on.
    seed:
        Of the learner.
    edges, decision_scope:
        What may be an edge (:class:`~agentcomm.pruning.pool.Pool`).
    price:
        What the tokens of one whole team are worth in points of score, from 0 (ignore them) on.
    embedder:
        For methods that look at questions: an :class:`~agentcomm.pruning.embeddings.Embedder`, or
        a word such as ``"minilm"``.
    out:
        The policy's folder, with ``learning`` in it; nothing is kept without.
    records:
        A file of records to use and to add to, instead of the folder's own: no rollout in it is run
        again, and methods that can (frugal) learn from all of them.
    draws:
        How many different replies the model may give to one prompt; more than 1 only where the
        temperature isn't 0.
    limit:
        ``learn`` items at most (200).
    validate:
        ``validate`` items; a task that is named loads its own.
    environment:
        Where topologies are tried instead of on the real team: a planted world, say.
    on_progress:
        Hears after every call and rollout (:class:`~agentcomm.pruning.runner.LearnProgress`).
    options:
        A :class:`~agentcomm.options.RunOptions`; its fields may also be given by their names, if the
        method has no setting of that name. All other names are settings of the method.

    Raises
    ------
    UserError
        For anything that can't be meant.
    LimitExceeded
        If tokens or money are spent before learning has ended.
    RunError
        If nothing further could succeed.

    Examples
    --------
    >>> from agentcomm.pruning.planted import PlantedWorld
    >>> from agentcomm.task import Score
    >>> world = PlantedWorld(0, agents=5)
    >>> task = Task("planted", world.items(8), lambda item, answer: Score(0.0))
    >>> policy = fit(world.pool.graph, task, "none", environment=world)
    >>> len(policy(task.items[0]).masks[0].agents)
    6
    """
    try:
        return anyio.run(lambda: fit_async(graph, task, method, **options))
    except RuntimeError as error:
        if "Already running" not in str(error):
            raise
        raise ConfigError(
            "fit can't be called where an event loop is running (a notebook, an async function); write "
            "`await fit_async(...)` there"
        ) from error


_OWN = tuple(n for n in inspect.signature(learn).parameters if n not in ("options", "settings"))


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords told apart: of :func:`learn`, of how to run, of the method."""
    ours = {k: v for k, v in given.items() if k in _OWN}
    rest = {k: v for k, v in given.items() if k not in _OWN and k not in ("options", "settings")}
    fields = {f.name for f in dataclasses.fields(RunOptions)}
    run = {k: v for k, v in rest.items() if k in fields}
    own = {k: v for k, v in rest.items() if k not in fields}
    ours["options"] = RunOptions.of(given.get("options"), **run)
    ours["settings"] = {**(given.get("settings") or {}), **own}
    return ours


async def _affordable(real: RealEnvironment, tokens: int) -> int:
    """How many rollouts of the whole team fit into ``tokens``, by the first item."""
    from agentcomm.pruning.runner import whole_team

    (outcome,) = await real.run_all(real.items[:1], lambda item: whole_team(real.pool))
    took = outcome.total_tokens or 0
    if took * LEAST > tokens:
        raise ConfigError(
            f"{tokens:,} tokens are too few to measure and to learn: the whole team takes {took:,} for an item; "
            f"give at least {LEAST} times that"
        )
    if not took:
        raise ConfigError("the model does not tell how many tokens it used; limit rollouts instead")
    return tokens // took


def _items(
    task: Task | str, validate: Task | Sequence[Item] | None, limit: int | None
) -> tuple[Task, tuple[Item, ...], tuple[Item, ...]]:
    """The task, the items to learn on, and those to ask about."""
    if isinstance(task, str):
        from agentcomm.loading import load_task

        name = task
        task = load_task(name, {"split": "learn"})
        if validate is None:
            try:
                validate = load_task(name, {"split": "validate"})
            except TaskError:  # there is none
                validate = ()
    if not isinstance(task, Task):
        raise TaskError(f"{task!r} is no task; give a Task loaded with split='learn', or a task's name")
    held_out = validate.items if isinstance(validate, Task) else validate or ()
    items = [i for i in task.items if split_of(i) == "learn"]
    if not items:
        raise TaskError(
            f"task {task.name!r} holds no item of split 'learn', and nothing else may be learned from; load it "
            f"with split='learn'"
        )
    held_out = [*held_out, *(i for i in task.items if split_of(i) == "validate")]
    return task, tuple(items[: limit or ITEMS]), tuple(i for i in held_out if split_of(i) == "validate")


def _finish(policy: Policy, items: Iterable[Item], spent: Mapping[str, Any], model: str | None) -> None:
    """Complete the card: everything that was run, and everything that was paid."""
    card = policy.card
    policy.card = dataclasses.replace(
        card,
        learned_from=card.learned_from | {hash_of(item) for item in items},
        spent={**card.spent, **spent},
        model=card.model or model,
    )


def _takes_records(made: Any) -> bool:
    """Whether a learner learns from rollouts that were made before, too."""
    return dataclasses.is_dataclass(made) and any(f.name == "records" for f in dataclasses.fields(made))


def _plain(made: Any) -> dict[str, Any]:
    """A learner's settings as JSON; an embedder by its id."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(made) if dataclasses.is_dataclass(made) else ():
        value = getattr(made, f.name)
        if f.name == "records":
            continue
        out[f.name] = value.id if hasattr(value, "embed") else value
    return out


def _temporary() -> Any:
    return tempfile.TemporaryDirectory(prefix="agentcomm-learning-", ignore_cleanup_errors=True)
