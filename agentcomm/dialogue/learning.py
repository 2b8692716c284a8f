"""Learning: generate, rank, select, train, and again (Optima, arXiv 2410.08115; ``dialogue.md`` section 4).

    isft       the best dialogue of each item, imitated
    idpo       the first iteration as isft; then trees of dialogues, and the better of two messages
               preferred (DPO with the SFT term)
    isft-dpo   isft and plain DPO in turn

In the first iteration every dialogue is told a message format, drawn from the pool; what is learned
from it has no such instruction. One model plays all agents. It is replaced by the trained one only
where that is surely better on ``validate`` items (the first iteration: where it is not worse), unless
``accept="always"``.

A run's folder::

    config.json, items.json, ledger.sqlite    as of any run; every call is under phase ``learn``
    iter1/, iter2/, ...                       the adapter after that many iterations, if it was accepted
    learn/iteration-000/                      dialogues.jsonl, trees.jsonl, rows.jsonl, model/,
                                              manifest.json and, last of all, DONE
    policy.json                               what was learned, see :mod:`agentcomm.dialogue.policy`

The same call continues after the last complete dialogue, expansion of a tree or trainer's checkpoint.
Manifests hold no times, so those of an interrupted run equal those of one that wasn't.

Deliberately absent: how a model is trained and served (:mod:`agentcomm.dialogue.workshop`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.calls import derive_seed
from agentcomm.dialogue.export import Method as Training
from agentcomm.dialogue.export import ModelRef, TrainConfig
from agentcomm.dialogue.formats import NATURAL, POOL, Format, pool
from agentcomm.dialogue.generate import (
    PURPOSES,
    READER,
    READS,
    Ask,
    Played,
    Stage,
    iteration_of,
    places,
    purpose_of,
)
from agentcomm.dialogue.policy import DialoguePolicy
from agentcomm.dialogue.readability import Off, Readability
from agentcomm.dialogue.reward import RewardConfig, RewardTerms, quantile
from agentcomm.dialogue.rows import (
    PreferenceRow,
    Row,
    preference_rows,
    rows,
    without_formats,
    write_rows,
    write_text,
)
from agentcomm.dialogue.search import break_even
from agentcomm.dialogue.select import Choice, Funnel, Order, PairSelector, select, select_pairs
from agentcomm.dialogue.tree import DialogueTree
from agentcomm.errors import ConfigError, LedgerError, TaskError
from agentcomm.evaluation.held import held
from agentcomm.evaluation.run import Progress
from agentcomm.evaluation.rundir import RunDir, plain, read_json, write_json
from agentcomm.evaluation.splits import hash_of, require_learn
from agentcomm.evaluation.stats import mean_interval, paired_bootstrap
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import TrainingRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import content_id
from agentcomm.options import RunOptions
from agentcomm.task import Item, Task

Method = Literal["isft", "idpo", "isft-dpo"]
METHODS: tuple[Method, ...] = ("isft", "idpo", "isft-dpo")
Selector = Literal["reward", "random", "unfiltered"]
SELECTORS: tuple[Selector, ...] = ("reward", "random", "unfiltered")
DONE, MANIFEST, BASE = "DONE", "manifest.json", "base"


@dataclass(frozen=True)
class LearnConfig:
    """What learning does; the defaults are for small models (``dialogue.md`` section 4).

    Parameters
    ----------
    method:
        See the module.
    samples:
        Dialogues an item.
    temperature, pool_temperature:
        Of dialogues, and of those that are told a format.
    formats:
        The pool of the first iteration, natural language among them; none: it is an iteration as the
        others.
    threshold, share, order, drop_best, selector:
        Which dialogues are imitated (:func:`agentcomm.dialogue.select.select`). As controls,
        ``"random"`` draws as many from what passed, ``"unfiltered"`` as many from all dialogues.
    least, gap, pair_share, pair_selector:
        Which messages are preferred (:func:`agentcomm.dialogue.select.select_pairs`).
    expansions, rollouts:
        Of a tree; their product are its dialogues.
    calibrate, quantile:
        Dialogues on distinct items, and the quantile of their tokens, that normalise an iteration's
        (by default 0.85, the hybrid's 0.80). Imitation normalises by the longest of an item's.
    accept, tolerance:
        ``"better"`` or ``"always"``; the loss of score that the first iteration may bring.
    restart:
        Whether imitation starts from the base model each time, as for debates.
    reward, sft, dpo:
        What is rewarded; how each kind of training is done (its ``method`` follows from the step).
    seed:
        Of everything that is drawn.
    """

    method: Method = "isft"
    samples: int = 4
    temperature: float = 0.7
    pool_temperature: float = 0.3
    formats: tuple[str, ...] = tuple(POOL)
    threshold: float = 0.5
    share: int = 70
    order: Order = "paper"
    drop_best: int = 0
    selector: Selector = "reward"
    least: float = 0.4
    gap: float = 0.2
    pair_share: int = 50
    pair_selector: PairSelector = "q"
    expansions: int = 8
    rollouts: int = 3
    calibrate: int = 100
    quantile: float | None = None
    accept: Literal["better", "always"] = "better"
    tolerance: float = 0.02
    restart: bool = False
    reward: RewardConfig = field(default_factory=RewardConfig)
    sft: TrainConfig = field(default_factory=TrainConfig)
    dpo: TrainConfig = field(default_factory=lambda: TrainConfig("rpo"))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.selector not in SELECTORS:
            raise ConfigError(
                f"method={self.method!r}, selector={self.selector!r}; methods: {', '.join(METHODS)}; "
                f"selectors: {', '.join(SELECTORS)}"
            )
        if self.accept not in ("better", "always"):
            raise ConfigError(f"accept={self.accept!r}; use better or always")
        if self.samples < 2:
            raise ConfigError(
                f"{self.samples} dialogues an item leave nothing to choose from; take at least 2"
            )
        for name in ("expansions", "rollouts", "calibrate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"learning: {name}={getattr(self, name)}; it must be at least 1")
        for name in ("temperature", "pool_temperature"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(
                    f"learning: {name}={getattr(self, name)}; above 0, or an item's dialogues are all the same"
                )
        if self.formats:
            pool(self.formats)

    @property
    def token_quantile(self) -> float:
        return self.quantile or (0.80 if self.method == "isft-dpo" else 0.85)

    def step(self, iteration: int) -> Step:
        """What iteration ``iteration`` (from 0) does.

        >>> [LearnConfig("isft-dpo").step(t).training for t in range(4)]
        ['sft', 'dpo', 'sft', 'dpo']
        """
        first = bool(self.formats) and iteration == 0
        if self.method == "isft" or first:
            return Step("sft", first)
        if self.method == "idpo":
            return Step("rpo", False)
        return Step("dpo" if iteration % 2 else "sft", False)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reward": self.reward.to_dict(), "formats": list(self.formats)}


class Step(NamedTuple):
    """An iteration's training, and whether its dialogues are told formats of the pool."""

    training: Training
    from_pool: bool


class Workshop(Protocol):
    """Where models are trained and served."""

    def serve(self, ref: ModelRef) -> str | Backend | None:
        """What a model is called by :func:`agentcomm.evaluate`."""
        ...

    def train(
        self, found: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig, out: Path
    ) -> ModelRef:
        """``base`` with one adapter more, trained in the folder ``out``; continues what is there."""
        ...

    def publish(self, ref: ModelRef, out: Path) -> None:
        """Put a model's adapters into the folder ``out``, as one."""
        ...

    def report(self, out: Path) -> Mapping[str, Any]:
        """``steps``, ``tokens_seen``, ``device_seconds`` and ``device`` of a training in ``out``, as far as known."""
        ...


@dataclass(frozen=True)
class Learned:
    """What learning came to: a manifest for each iteration, and the policy."""

    manifests: tuple[dict[str, Any], ...]
    policy: DialoguePolicy | None
    adapter: Path | None
    spent: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "iterations": list(self.manifests),
            "policy": None if self.policy is None else self.policy.to_dict(),
            "adapter": None if self.adapter is None else str(self.adapter),
            "spent": self.spent,
        }


@dataclass
class Learning:
    """One run of learning.

    Parameters
    ----------
    graph_of:
        The team by the instruction that says how to write; ``""`` is natural language.
    task:
        Scores the answers.
    learn, validate:
        Items to learn from, and those that models are accepted on.
    base:
        The model to begin with.
    workshop:
        Trains and serves.
    out:
        The run's folder.
    readability:
        A frozen model; it must be the same in all iterations.
    on_progress, note:
        Hear of every dialogue, and of every step, in words.

    Raises
    ------
    TaskError
        If an item is not to be learned from, or stands in both lists.
    """

    graph_of: Callable[[str], AgentGraph]
    task: Task
    learn: Sequence[Item]
    validate: Sequence[Item]
    base: ModelRef
    workshop: Workshop
    out: Path
    config: LearnConfig = field(default_factory=LearnConfig)
    readability: Readability = field(default_factory=Off)
    options: RunOptions = field(default_factory=RunOptions)
    on_progress: Callable[[str, Progress], None] | None = None
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        require_learn(self.learn)
        require_learn(self.validate, validate=True)
        if not self.learn:
            raise TaskError("there are no items to learn from")
        if both := {hash_of(i) for i in self.learn} & {hash_of(i) for i in self.validate}:
            raise TaskError(f"{len(both)} items stand in both splits; learn on one and accept on the other")
        if not self.validate and self.config.accept == "better":
            raise TaskError("there are no validate items to accept a model on; give some, or accept='always'")
        # Teams differ by their format alone, and rows are made with the one that has none.
        self.graph = without_formats(self.graph_of(""))
        self.speaking = list(dict.fromkeys(agent for _, agent in places(self.graph)))

    # -- the run ---------------------------------------------------------------------------------

    async def run(self, iterations: int) -> Learned:
        """``iterations`` of them in all, those that are done already included.

        Raises
        ------
        ConfigError
            If the folder holds a learning under another configuration.
        """
        if iterations < 1:
            raise ConfigError(f"{iterations} iterations; at least 1")
        directory = RunDir.create(self.out)
        with directory.locked():
            directory.settle(self._identity(), {i.id: i.content_hash for i in (*self.learn, *self.validate)})
            try:
                opened = directory.ledger()
            except LedgerError as error:  # nothing runs yet: the user can mend it
                raise ConfigError(str(error)) from error
            with opened as ledger:
                manifests: list[dict[str, Any]] = []
                for number in range(iterations):
                    folder = self._folder(number)
                    if not (folder / DONE).exists():
                        await _Iteration(self, ledger, number, tuple(manifests)).run()
                    manifests.append(read_json(folder / MANIFEST))
        last = manifests[-1]["model_out"]
        adapter = None if last == BASE else self.out / last
        spent = sum(sum(m["spent"].values()) for m in manifests)
        policy = self._policy(last, spent)
        policy.save(self.out)
        return Learned(tuple(manifests), policy, adapter, spent)

    async def export(self, path: Path) -> dict[str, Any]:
        """Dialogues of the base model, ranked and selected, as rows for training elsewhere; returns the manifest.

        Raises
        ------
        ConfigError
            As :meth:`run`; and if nothing was selected.
        """
        directory = RunDir.create(self.out)
        with directory.locked():
            directory.settle(self._identity(), {i.id: i.content_hash for i in self.learn})
            with directory.ledger() as ledger:
                return await _Iteration(self, ledger, 0, ()).export(path)

    def ref(self, name: str) -> ModelRef:
        """A model by its name in manifests: ``base``, or ``iter2``."""
        return self.base if name == BASE else ModelRef(self.base.base, (str(self.out / name),))

    def _folder(self, number: int) -> Path:
        return self.out / "learn" / f"iteration-{number:03d}"

    def _policy(self, name: str, spent: int) -> DialoguePolicy:
        served = self.workshop.serve(self.ref(name))
        model = served if isinstance(served, str | None) else served.name
        return DialoguePolicy(
            models={} if model is None else dict.fromkeys(self.speaking, model),
            trained=() if name == BASE else tuple(self.speaking),
            learned_from=tuple(sorted({hash_of(i) for i in (*self.learn, *self.validate)})),
            spent=spent,
        )

    def _identity(self) -> dict[str, Any]:
        return plain(  # type: ignore[no-any-return]
            {
                "graph": self.graph.to_dict(),
                "task": {
                    "name": self.task.name,
                    "learn": [hash_of(i) for i in self.learn],
                    "validate": [hash_of(i) for i in self.validate],
                },
                "model": str(self.base),
                "readability": self.readability.name,
                "learning": self.config.to_dict(),
                "options": {**self.options.identity(), "temperature": None},
            }
        )


class _Iteration:
    """One iteration of a :class:`Learning`."""

    def __init__(
        self, learning: Learning, ledger: Ledger, number: int, before: tuple[dict[str, Any], ...]
    ) -> None:
        self.learning, self.ledger, self.number, self.before = learning, ledger, number, before
        self.config = learning.config
        self.step = self.config.step(number)
        self.folder = learning._folder(number)
        self.model_in: str = before[-1]["model_out"] if before else BASE
        self.played: list[Played] = []
        self.grown: list[DialogueTree] = []
        self._holding = AsyncExitStack()
        self._held: str | None = None

    async def run(self) -> None:
        """All of it, down to ``DONE``."""
        async with self._holding:
            await self._run()

    async def _run(self) -> None:
        learning, config = self.learning, self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        found, funnel, normaliser = await self.rows()
        manifest = self.head(normaliser, funnel, found)
        candidate: ModelRef | None = None
        if found:
            base = (
                learning.base if self.step.training == "sft" and config.restart else self.ref(self.model_in)
            )
            training = self.training()
            out = self.folder / "model"
            learning.note(
                f"iteration {self.number + 1}: {self.step.training} on {len(found)} rows of "
                f"{len({r.meta.item for r in found})} items"
            )
            await self._holding.aclose()  # training needs the memory
            self._held = None
            candidate = learning.workshop.train(found, base, training, out)
            manifest["training"] = await self._record_training(out, training, len(found))
            learning.workshop.publish(candidate, learning.out / self.name)
        else:
            manifest["training"] = None
        await self._accept(manifest, normaliser, candidate is not None)
        manifest["spent"] = spent(self.ledger).get(self.number, {})
        self._files()
        write_json(self.folder / MANIFEST, manifest)
        write_text(self.folder / DONE, "")

    async def export(self, path: Path) -> dict[str, Any]:
        self.folder.mkdir(parents=True, exist_ok=True)
        async with self._holding:
            found, funnel, normaliser = await self.rows()
        manifest = self.head(normaliser, funnel, found)
        manifest["spent"] = spent(self.ledger).get(self.number, {})
        self._files()
        if not found:
            raise ConfigError(f"no rows to export: {manifest['nothing']}")
        write_rows(path, found)
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    @property
    def name(self) -> str:
        return f"iter{self.number + 1}"

    def ref(self, name: str) -> ModelRef:
        return self.learning.ref(name)

    def training(self) -> TrainConfig:
        """How this iteration's training is done."""
        given = self.config.sft if self.step.training == "sft" else self.config.dpo
        return replace(
            given, method=self.step.training, seed=derive_seed(self.config.seed, self.number, "train")
        )

    def rng(self, what: str, item: str = "") -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.config.seed, self.number, what, item))

    # -- generate, rank, select --------------------------------------------------------------------

    async def rows(self) -> tuple[list[Row] | list[PreferenceRow], dict[str, Any], float | None]:
        """The rows to train on, how many things there were on the way, and the normaliser."""
        found = await (self._imitated() if self.step.training == "sft" else self._preferred())
        write_rows(self.folder / "rows.jsonl", found[0])
        return found

    async def _imitated(self) -> tuple[list[Row], dict[str, Any], float | None]:
        config, learning = self.config, self.learning
        temperature = config.pool_temperature if self.step.from_pool else config.temperature
        normaliser: float | None = None
        if self.step.from_pool and config.accept == "better":
            async with self.stage(self.model_in, config.temperature, "calibrate") as stage:
                normaliser = await self._calibrate(stage)
        teams: dict[str, AgentGraph] = {NATURAL: learning.graph}
        groups = [[self._ask(item, draw, teams) for draw in range(config.samples)] for item in learning.learn]
        async with self.stage(self.model_in, temperature, "generate") as stage:
            played = await stage.groups(groups)
        self.played += [p for group in played for p in group]
        if not self.step.from_pool:
            normaliser = self._quantile([group[0] for group in played])
        kept, funnel = self._select(played)
        made: list[Row] = []
        for choice in kept:
            one = played[choice.item][choice.sample]
            made += rows(
                learning.graph, one.ask.item, one.said, reward=choice.terms.total, iteration=self.number
            )
        return made, {**asdict(funnel), "rows": len(made)}, normaliser

    def _ask(self, item: Item, draw: int, teams: dict[str, AgentGraph]) -> Ask:
        format = self._format(item, draw)
        if format.id not in teams:
            teams[format.id] = self.learning.graph_of(format.text)
        return Ask(item, teams[format.id], self.number, "generate", draw, format.id)

    def _format(self, item: Item, draw: int) -> Format:
        known = pool(self.config.formats if self.step.from_pool else ())
        drawn = derive_seed(self.config.seed, self.number, hash_of(item), "format", draw) % len(known)
        return list(known.values())[drawn]

    def _select(self, played: Sequence[Sequence[Played]]) -> tuple[list[Choice], Funnel]:
        config = self.config
        groups = [[p.terms or _UNKNOWN for p in group] for group in played]
        kept, funnel = select(
            groups,
            threshold=config.threshold,
            share=config.share,
            order=config.order,
            drop_best=config.drop_best,
            selector="random" if config.selector == "random" else "reward",
            rng=self.rng("select"),
        )
        if config.selector == "unfiltered":
            every = [
                Choice(i, k, p.terms)
                for i, group in enumerate(played)
                for k, p in enumerate(group)
                if p.terms is not None and math.isfinite(p.terms.total)
            ]
            drawn = sorted(self.rng("select").permutation(len(every))[: len(kept)].tolist())
            kept = [every[i] for i in drawn]
        return kept, funnel

    async def _preferred(self) -> tuple[list[PreferenceRow], dict[str, Any], float | None]:
        config, learning = self.config, self.learning
        async with self.stage(self.model_in, config.temperature, "calibrate") as stage:
            normaliser = await self._calibrate(stage)
        async with self.stage(self.model_in, config.temperature, "search") as stage:
            grown = await stage.trees(
                learning.learn,
                learning.graph,
                self.number,
                normaliser,
                expansions=config.expansions,
                rollouts=config.rollouts,
                seed=config.seed,
            )
        made: list[PreferenceRow] = []
        sums: Counter[str] = Counter()
        for item, (tree, played) in zip(learning.learn, grown, strict=True):
            self.grown.append(tree)
            self.played += played
            pairs, funnel = select_pairs(
                tree,
                least=config.least,
                gap=config.gap,
                share=config.pair_share,
                selector=config.pair_selector,
                rng=self.rng("pairs", item.id),
            )
            made += preference_rows(learning.graph, item, pairs, iteration=self.number)
            sums.update(
                {"items": 1, "selectable": funnel.selectable, "passed": funnel.passed, "kept": funnel.kept}
            )
        return made, {**sums, "rows": len(made)}, normaliser

    async def _calibrate(self, stage: Stage) -> float:
        items = self.learning.learn[: self.config.calibrate]
        asks = [Ask(i, self.learning.graph, self.number, "calibrate") for i in items]
        normaliser, played = await stage.calibrated(asks, self.config.token_quantile)
        self.played += played
        return normaliser

    def _quantile(self, played: Sequence[Played]) -> float:
        counts = [p.terms.tokens for p in played if p.terms is not None]
        if not counts:
            why = next((p.failure for p in played if p.failure), "")
            raise TaskError(f"every dialogue of iteration {self.number + 1} failed: {why}")
        return quantile(counts, self.config.token_quantile)

    @asynccontextmanager
    async def stage(self, model: str, temperature: float, title: str) -> AsyncIterator[Stage]:
        learning = self.learning
        name = f"iteration {self.number + 1}: {title}"
        heard = learning.on_progress
        served = learning.workshop.serve(self.ref(model))
        await self._hold(served)
        made = Stage(
            self.ledger,
            learning.task,
            served,
            replace(learning.options, seed=self.config.seed, temperature=temperature, executor="plain"),
            model_name=model,
            config=self.config.reward,
            readability=learning.readability,
            on_progress=None if heard is None else lambda state: heard(name, state),
        )
        async with made:
            yield made

    async def _hold(self, served: str | Backend | None) -> None:
        """A vLLM server that we start takes a minute: it is kept until another model is asked."""
        if not isinstance(served, str) or not served.startswith("vllm/") or served == self._held:
            return
        await self._holding.aclose()
        await self._holding.enter_async_context(held(served, self.learning.options))
        self._held = served

    # -- train, accept -----------------------------------------------------------------------------

    async def _record_training(self, out: Path, training: TrainConfig, count: int) -> dict[str, Any]:
        report = self.learning.workshop.report(out)
        row = TrainingRow(
            iteration=self.number,
            method=training.method,
            rows=count,
            tokens=report.get("tokens_seen"),
            steps=report.get("steps"),
            seconds=report.get("device_seconds"),
            device=str(report.get("device", "")),
        )
        if all(t.iteration != self.number for t in self.ledger.trainings()):
            await self.ledger.record_training(row)
        config = asdict(training)
        return {
            "method": row.method,
            "rows": count,
            "steps": row.steps,
            "tokens": row.tokens,
            "config": config,
        }

    async def _accept(self, manifest: dict[str, Any], normaliser: float | None, trained: bool) -> None:
        """Compare the trained model with the one before; writes ``accept`` and ``model_out``."""
        config, learning = self.config, self.learning
        manifest["model_out"] = self.name if trained and config.accept == "always" else self.model_in
        manifest["accept"] = None
        if not learning.validate:
            return
        ours = self._place_of(self.model_in)
        normaliser, before = await self._greedy(self.model_in, ours, normaliser)
        found: dict[str, Any] = {"normaliser": normaliser, "before": _standing(before), "place": list(ours)}
        if trained:
            _, after = await self._greedy(self.name, (self.number, 1), normaliser)
            both = [
                (a.terms, b.terms)
                for a, b in zip(after, before, strict=True)
                if a.terms is not None and b.terms is not None
                if math.isfinite(a.terms.total) and math.isfinite(b.terms.total)
            ]
            if not both:
                raise TaskError("every dialogue that models are compared on failed; see the ledger for why")
            rng = np.random.default_rng(derive_seed(config.seed, self.number, "accept"))
            better = paired_bootstrap([a.total for a, _ in both], [b.total for _, b in both], rng=rng)
            right = paired_bootstrap([a.task for a, _ in both], [b.task for _, b in both], rng=rng)
            surely = better.low > 0 if better.low is not None else (better.mean or 0.0) > 0
            kept_up = right.mean is not None and right.mean >= -config.tolerance
            accepted = config.accept == "always" or (kept_up if self.step.from_pool else surely)
            found |= {
                "after": _standing(after),
                "reward": asdict(better),
                "task": asdict(right),
                "accepted": accepted,
            }
            if accepted:
                manifest["model_out"] = self.name
        manifest["accept"] = found
        first = (self.before[0]["accept"] if self.before else found)["before"]
        now = found["after"] if manifest["model_out"] == self.name else found["before"]
        total = sum(sum(m["spent"].values()) for m in self.before)
        total += sum(spent(self.ledger).get(self.number, {}).values())
        saved = None
        if first["total_tokens"] is not None and now["total_tokens"] is not None:
            saved = first["total_tokens"] - now["total_tokens"]
        found["saved_per_item"] = saved
        found["break_even_items"] = None if saved is None else break_even(total, saved)

    def _place_of(self, model: str) -> tuple[int, int]:
        """(iteration, number) of the greedy dialogues of a model: those it was accepted by, or new ones."""
        for manifest in self.before:
            if manifest["model_out"] == model and manifest["model_in"] != model:
                return manifest["iteration"], 1
        for manifest in self.before:
            if manifest["accept"] is not None:
                return tuple(manifest["accept"]["place"])
        return self.number, 0

    async def _greedy(
        self, model: str, place: tuple[int, int], normaliser: float | None
    ) -> tuple[float, list[Played]]:
        iteration, draw = place
        graph = replace_agents(self.learning.graph, temperature=None)
        async with self.stage(model, 0.0, "accept") as stage:
            asks = [Ask(i, graph, iteration, "accept", draw) for i in self.learning.validate]
            normaliser, found = await stage.calibrated(asks, self.config.token_quantile, normaliser)
        self.played += found
        return normaliser, found

    # -- what is left of it ------------------------------------------------------------------------

    def head(
        self, normaliser: float | None, funnel: dict[str, Any], found: Sequence[Row] | Sequence[PreferenceRow]
    ) -> dict[str, Any]:
        learning = self.learning
        main = [p for p in self.played if p.ask.purpose in ("generate", "search")]
        return {
            "iteration": self.number,
            "method": self.config.method,
            "training_method": self.step.training,
            "from_pool": self.step.from_pool,
            "config_sha256": content_id(learning._identity()),
            "items": [hash_of(i) for i in learning.learn],
            "model_in": self.model_in,
            "normaliser": normaliser,
            "readability": learning.readability.name,
            "dialogues": len(main),
            "failed": sum(p.score is None for p in main),
            "unmarked": sum(p.score is not None and not p.marked for p in main),
            "funnel": funnel,
            "reward": _means([p.terms for p in main if p.terms is not None]),
            "guards": dict(sorted(Counter(g for p in main if p.terms for g in p.terms.guards).items())),
            "formats": _by_format(main) if self.step.from_pool else None,
            "nothing": None if found else self._nothing(main, funnel),
        }

    def _nothing(self, main: Sequence[Played], funnel: Mapping[str, Any]) -> str:
        """Why nothing was selected."""
        there = [p for p in main if p.terms is not None]
        config = self.config
        if not there:
            why = next((p.failure for p in main if p.failure), "too few of an item came to their end")
            return f"every dialogue failed ({why})"
        if not any(p.marked for p in there):
            return (
                "no dialogue marked an answer (<A>answer</A>); raise the agents' max_tokens or rounds, or take "
                "a model that follows the instruction"
            )
        totals = [p.terms.total for p in there if p.terms is not None]
        if len(set(totals)) == 1:
            return f"all dialogues have the same reward ({totals[0]:.3f}), so none is better than another"
        if self.step.training == "sft":
            if not funnel["selectable"]:
                return f"no dialogue reached the score that is worth imitating (task_floor={config.reward.task_floor})"
            return (
                f"no dialogue's reward is above the threshold {config.threshold} (the best is {max(totals):.3f}); "
                "lower it or sample more dialogues"
            )
        return (
            f"no pair of messages is above the thresholds (value {config.least}, difference {config.gap}); lower "
            "them or grow larger trees"
        )

    def _files(self) -> None:
        order = {purpose: i for i, purpose in enumerate(PURPOSES)}
        dialogues = sorted(self.played, key=lambda p: (order[p.ask.purpose], p.ask.item.id, p.ask.sample))
        lines = (json.dumps(plain(p.to_dict())) + "\n" for p in dialogues)
        write_text(self.folder / "dialogues.jsonl", "".join(lines))
        if self.grown:
            lines = (json.dumps(tree.to_dict()) + "\n" for tree in self.grown)
            write_text(self.folder / "trees.jsonl", "".join(lines))


_UNKNOWN = RewardTerms(
    task=0.0,
    tokens=0,
    normaliser=1.0,
    ratio=0.0,
    nll=None,
    task_term=0.0,
    token_term=0.0,
    loss_term=0.0,
    guards=(),
    selectable=False,
)
"""Stands for a dialogue without a reward, which is never selected."""


def replace_agents(graph: AgentGraph, **changes: Any) -> AgentGraph:
    """The graph with a change to every agent that calls a model."""
    agents = tuple(a if a.act is not None else replace(a, **changes) for a in graph.agents)
    return replace(graph, agents=agents)


def spent(ledger: Ledger) -> dict[int, dict[str, int]]:
    """Tokens paid by iteration and purpose, prompts and replies together; reading for likelihoods is ``score``.

    What a call cost that was never heard of again is not known and not in it.
    """
    found: dict[int, Counter[str]] = {}
    for call in ledger.calls(texts=False):
        if call.cache_hit or call.phase != "learn":
            continue
        purpose = READS if call.agent == READER else purpose_of(call.sample)
        tokens = (call.input_tokens or 0) + (call.output_tokens or 0)
        found.setdefault(iteration_of(call.sample), Counter())[purpose] += tokens
    return {iteration: dict(sorted(of.items())) for iteration, of in sorted(found.items())}


def _standing(played: Sequence[Played]) -> dict[str, Any]:
    """How a model did: means over the dialogues that didn't fail."""
    terms = [p.terms for p in played if p.terms is not None]
    totals = [p.tokens["total"] for p in played if p.terms is not None and "total" in p.tokens]
    score = mean_interval([t.task for t in terms])
    return {
        "items": len(terms),
        "failed": len(played) - len(terms),
        "score": {"mean": score.mean, "low": score.low, "high": score.high},
        "marked": sum(p.marked for p in played if p.terms is not None),
        **_means(terms),
        "total_tokens": float(np.mean(totals)) if totals and len(totals) == len(terms) else None,
    }


def _means(terms: Sequence[RewardTerms]) -> dict[str, float | None]:
    """Each component's mean over the dialogues in which it is known."""
    found: dict[str, float | None] = {}
    for name in ("task", "tokens", "ratio", "nll", "task_term", "token_term", "loss_term", "total"):
        values = [v for t in terms if (v := getattr(t, name)) is not None and math.isfinite(v)]
        found[name] = float(np.mean(values)) if values else None
    return found


def _by_format(played: Sequence[Played]) -> dict[str, dict[str, float | None]]:
    formats = sorted({p.ask.format for p in played})
    return {
        f: {
            "dialogues": float(sum(p.ask.format == f for p in played)),
            **_means([p.terms for p in played if p.ask.format == f and p.terms is not None]),
        }
        for f in formats
    }
