"""Fitting: a policy by the name of its method, from a graph and a task.

    policy = fit(graph, task, method="agp", model="vllm/...", rollouts=600, out="policies/math")
    topology = policy(item)

Learns on ``learn`` items only. A budget of rollouts is divided before anything is paid: a share
measures the whole team (which says what tokens are worth), the same share measures what came of it,
the rest is the learner's. What was learned is then confirmed on ``validate`` items, beyond that
budget; where it loses too much there, the whole team is what is returned
(:mod:`agentcomm.pruning.confirm`). With a folder, everything paid for is kept in its ``learning``, and the same call goes on after any
interruption (:mod:`agentcomm.pruning.runner`).

Methods are found by name and imported when they are used, so that listing them needs no torch.

Deliberately absent: any method.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_type_hints

import anyio

from agentcomm.errors import ConfigError, LimitExceeded, MissingExtraError, RunError, TaskError
from agentcomm.evaluation.splits import hash_of, split_of
from agentcomm.graph import AgentGraph
from agentcomm.options import RunOptions, model_name
from agentcomm.pruning import confirm as confirming
from agentcomm.pruning.confirm import CONFIRM, MARGIN, Confirmation, Evidence, Watched, evidence
from agentcomm.pruning.environment import Budget, Environment, Metered, Outcome, TopologyLearner
from agentcomm.pruning.pool import DecisionScope, EdgeChoice, Pool
from agentcomm.task import Item, Task

if TYPE_CHECKING:
    from agentcomm.backends.base import Backend
    from agentcomm.graph import Topology
    from agentcomm.pruning.embeddings import Embedder
    from agentcomm.pruning.policy import Policy
    from agentcomm.pruning.records import Record
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

REFUSED = "refused"
"""Folder beside the policy: what was learned, where it wasn't adopted."""


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
    _check_settings(method, made, given)
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


_NUMBERS = {"int": ((int,), "a whole number"), "float": ((int, float), "a number")}


def _check_settings(method: str, made: Any, given: Mapping[str, Any]) -> None:
    """Refuses values of another type before anything is paid: many are first used in the middle of learning."""
    for f in dataclasses.fields(made):
        if f.name not in given:
            continue
        value, declared = given[f.name], str(f.type)
        kind, _, none = declared.partition(" | ")
        wanted = ""
        if kind in _NUMBERS and not (value is None and none == "None"):
            types, wanted = _NUMBERS[kind]
            if isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value):
                wanted = ""
        elif isinstance(value, str) and any(map(dataclasses.is_dataclass, _types(made, f.name))):
            wanted = f"a {kind}, which only Python can give"
        if wanted:
            raise ConfigError(f"method {method!r}: {f.name}={value!r}; it must be {wanted}")


def _types(made: Any, name: str) -> tuple[Any, ...]:
    """The types that a field may have; none where they can't be told."""
    try:
        hint = get_type_hints(made)[name]
    except (NameError, KeyError):
        return ()
    return get_args(hint) or (hint,)


# ------------------------------------------------------------------------------------ learning


@dataclass(frozen=True)
class Learned:
    """A policy and what came of it; ``reference`` and ``savings`` only where a real team was run.

    ``savings`` are those of what was learned, whether that was adopted or not.
    """

    policy: Policy
    reference: Reference | None = None
    savings: Savings | None = None
    confirmation: Confirmation | None = None
    """``None``: nothing was confirmed; a note on the card says why."""
    evidence: Evidence | None = None
    """``None`` where nothing was learned, or nothing pruned."""

    @property
    def adopted(self) -> bool:
        """Whether ``policy`` is what was learned, not the whole team in its place."""
        return self.confirmation is None or self.confirmation.adopted


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
    confirm: int | None = None,
    margin: float = MARGIN,
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
    if seed < 0:
        raise ConfigError(f"seed={seed}; it must be at least 0")
    if rollouts is not None and rollouts < LEAST and environment is None:
        raise ConfigError(f"{rollouts} rollouts are too few to measure and to learn; give at least {LEAST}")
    confirming.check(0 if confirm is None else confirm, margin)
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
    learns = ABOUT.get(name, _UNKNOWN).needs is not None
    asked = confirm if confirm is not None else CONFIRM if learns else 0
    usable = confirming.held_out(held_out, map(hash_of, items))
    if environment is not None:
        return await _elsewhere(
            made, environment, items, Budget(rollouts, tokens, cost), usable, asked, margin, out
        )

    from agentcomm.pruning.runner import REFERENCE_ITEMS, RealEnvironment, whole_team
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
            whole = whole_team(real.pool)
            real.progress.doing = "measuring the whole team"
            count = min(asked, len(usable))
            if rollouts is None and tokens is not None:
                affordable = await _affordable(real, tokens)
                # A third of the tokens at most, and two rollouts an item.
                count = min(count, max(0, affordable - LEAST) // LEAST)
                rollouts = affordable - 2 * count
            rollouts = ROLLOUTS if rollouts is None else rollouts
            real.progress.total = rollouts + 2 * count
            needs = ABOUT.get(name, _UNKNOWN).needs
            share = 2 if needs is None else MEASURED
            reference = await real.measure(max(1, min(REFERENCE_ITEMS, len(items), rollouts // share)))
            if count:
                _tell(
                    options,
                    f"what is learned will be confirmed on {count:,} validate items: up to {2 * count:,} rollouts and "
                    f"{2 * count * reference.tokens:,.0f} tokens more (confirm 0 leaves it out)",
                )
            left = rollouts - real.spent.rollouts - len(reference.items)
            if left < 0:
                raise ConfigError(
                    f"{rollouts:,} rollouts are fewer than the {rollouts - left:,} with which the whole team was "
                    f"measured in this folder; give at least that many, or another folder"
                )
            real.progress.doing = "learning"
            before = real.known()
            if _takes_records(made):
                made = dataclasses.replace(made, records=(*made.records, *before))
            metered = Watched(real, Budget(left))
            policy = await made.fit(items, metered, metered.budget)
            real.progress.doing = "measuring the policy"
            by_id = {item.id: item for item in items}
            measured = [by_id[i] for i in reference.items if i in by_id]
            savings = await measure(real, policy, measured, held_out)
            seen = None
            if learns:
                tried = [*_recorded(before, items, real.pool), *metered.tried]
                seen = _weighed(policy, whole, tried, items, savings, price, reference.tokens)
            notes: list[str] = []
            if needs and left < needs / 2:
                notes.append(
                    f"{left:,} rollouts to learn from; on the standard planted world {name} needs about {needs:,}"
                )
            found = None
            if chosen := confirming.held_out(usable, policy.card.learned_from, count):
                real.progress.doing = f"confirming on {len(chosen):,} validate items"
                with real.held_out(chosen) as other:
                    try:
                        found = await confirming.confirm(other, policy, whole, chosen, margin)
                    except LimitExceeded as error:
                        raise LimitExceeded(
                            f"while confirming what was learned: {error} (or leave that out: confirm 0)",
                            scope=error.scope,
                            limit=error.limit,
                        ) from error
                    found = dataclasses.replace(
                        found, tokens=other.paid(), wanted=_wanted(asked, confirm, chosen)
                    )
            spent = real.spent.to_dict()
            if found is not None:
                spent["confirm_tokens"] = found.tokens
            savings = dataclasses.replace(savings, learning=real.spent.tokens)
            _finish(policy, items, spent, model_name(model))
            _note(
                policy,
                notes,
                seen,
                found,
                "" if found else _unconfirmed(asked, held_out, usable, count, learns),
            )
            kept = _adopted(policy, found, whole, out)
    return Learned(kept, reference, savings, found, seen)


async def _elsewhere(
    made: Any,
    environment: Environment,
    items: tuple[Item, ...],
    budget: Budget,
    usable: tuple[Item, ...],
    asked: int,
    margin: float,
    out: Path | str | None,
) -> Learned:
    """Learn in an environment that isn't ours."""
    from agentcomm.pruning.records import Collector
    from agentcomm.pruning.runner import whole_team

    metered = Watched(environment, budget)
    policy = await made.fit(items, metered, metered.budget)
    learns = ABOUT.get(getattr(made, "name", ""), _UNKNOWN).needs is not None
    whole = whole_team(metered.pool)
    seen = evidence(policy, whole, metered.tried) if learns else None
    spent: dict[str, Any] = {"rollouts": metered.rollouts}
    found = None
    if chosen := confirming.held_out(usable, policy.card.learned_from, asked):
        while isinstance(environment, Collector):  # what confirms isn't there to be learned from
            environment = environment.environment
        meter = Metered(environment)
        found = await confirming.confirm(meter, policy, whole, chosen, margin)
        paid = None if meter.unknown_tokens else meter.tokens
        found = dataclasses.replace(found, tokens=paid)
        known = policy.card.spent.get("tokens")
        spent |= {
            "confirm_rollouts": meter.rollouts,
            "confirm_tokens": paid,
            "tokens": None if known is None or paid is None else known + paid,
        }
    _finish(policy, items, spent, getattr(environment, "id", None))
    _note(policy, [], seen, found, "" if found else _unconfirmed(asked, usable, usable, asked, learns))
    return Learned(_adopted(policy, found, whole, out), confirmation=found, evidence=seen)


def _adopted(policy: Policy, found: Confirmation | None, whole: Topology, out: Path | str | None) -> Policy:
    """What is used: the policy, or the whole team in its place; written to ``out``."""
    kept = policy
    if found is not None and not found.adopted:
        kept = confirming.kept_whole(policy, whole)
        if out is not None:
            policy.save(Path(out) / REFUSED)
    if out is not None:
        kept.save(out)
    return kept


def _note(
    policy: Policy, notes: Sequence[str], seen: Evidence | None, found: Confirmation | None, why: str
) -> None:
    """Write on the card what was claimed, what it was made of, and whether it was confirmed."""
    said = [
        *notes,
        *(seen.sentences() if seen is not None else ()),
        *(found.sentences() if found is not None else ()),
        *([why] if why else ()),
    ]
    trace = dict(policy.card.trace)
    if seen is not None:
        trace["evidence"] = seen.to_dict()
    if found is not None:
        trace["confirmation"] = found.to_dict()
    policy.card = dataclasses.replace(policy.card, notes=(*policy.card.notes, *said), trace=trace)


def _unconfirmed(
    asked: int, held_out: Sequence[Item], usable: Sequence[Item], count: int, learns: bool
) -> str:
    """Why nothing was confirmed, as a note; nothing for methods that learn nothing, unless asked to."""
    if not asked:
        return "not confirmed: nobody asked whether it loses anything on validate items" if learns else ""
    if not held_out:
        return "not confirmed: there are no validate items to see on whether it loses anything"
    if not usable or count:
        return "not confirmed: every validate item is also one that it has learned from"
    return "not confirmed: the tokens that may be spent leave none for it"


def _wanted(asked: int, confirm: int | None, chosen: Sequence[Item]) -> int | None:
    """How many items the user wanted, where there were fewer."""
    return asked if confirm is not None and len(chosen) < asked else None


def _recorded(
    records: Iterable[Record], items: Iterable[Item], pool: Pool
) -> Iterator[tuple[Item, Topology, Outcome]]:
    """Records as trials; of items that aren't at hand the question alone is known."""
    known = {hash_of(item): item for item in items}
    for record in records:
        if record.seed < 0:
            continue  # a label that a method made, not a rollout
        item = known.get(record.item_hash) or Item(
            record.item, record.query, metadata={"hash": record.item_hash}
        )
        yield item, record.topology(pool), record.outcome()


def _weighed(
    policy: Policy,
    whole: Topology,
    tried: Iterable[tuple[Item, Topology, Outcome]],
    items: Sequence[Item],
    savings: Savings,
    price: float,
    reference: float,
) -> Evidence | None:
    """The evidence, with what its gain is made of."""
    seen = evidence(policy, whole, tried)
    if seen is None or savings.before is None or savings.after is None:
        return seen
    score = None
    if savings.score_before is not None and savings.score_after is not None:
        score = savings.score_after - savings.score_before
    claim, sd = confirming.claim_of(policy, items)
    saved = price * (savings.before - savings.after) / reference
    return dataclasses.replace(
        seen, price=price, items=savings.measured, score=score, tokens=saved, claim=claim, claim_sd=sd
    )


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
        What the tokens of one whole team are worth in points of score, from 0 (ignore them) on: at 0.2
        a policy that loses 15 points and saves 80 % of the tokens counts as a gain. Where nothing may
        be lost, 0.02.
    confirm:
        So many ``validate`` items are run afterwards under the whole team and under what was learned,
        beyond ``rollouts`` (50 by default; methods that don't learn aren't confirmed unless asked to).
        Where it loses more than ``margin`` there, or surely loses, the whole team is returned, and the
        card says what was learned and why it wasn't adopted; ``out`` keeps it in ``refused``. 0 leaves
        that out.
    margin:
        The loss of score that may be, between 0 and 1.
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
        ``validate`` items, to confirm on and to ask whom the policy keeps; a task that is named loads
        its own.
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
    from agentcomm.pruning.runner import REFERENCE_ITEMS, whole_team

    for item in real.items[:REFERENCE_ITEMS]:
        (outcome,) = await real.run_all([item], lambda item: whole_team(real.pool))
        if outcome.status == "ok":
            break
    else:
        raise RunError(f"the whole team failed on the first items: {outcome.failure}")
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
    confirming.held_out(held_out, ())  # refuses those of other splits
    items = [i for i in task.items if split_of(i) == "learn"]
    if not items:
        raise TaskError(
            f"task {task.name!r} holds no item of split 'learn', and nothing else may be learned from; load it "
            f"with split='learn'"
        )
    held_out = [*held_out, *(i for i in task.items if split_of(i) == "validate")]
    return task, tuple(items[: limit or ITEMS]), tuple(held_out)


def _tell(options: RunOptions | None, text: str) -> None:
    if (note := RunOptions.of(options).note) is not None:
        note(text)


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
