"""Iteration: one round of learning, from dialogues to a model that is kept or not.

    iteration-000/   dialogues.jsonl, trees.jsonl, rows.jsonl, model/, manifest.json and, last, DONE

Every step finds what an interrupted one left: dialogues in the ledger, checkpoints in ``model/``; the
rest is made again from these and comes out the same.

Deliberately absent: how iterations follow each other (:mod:`agentcomm.dialogue.learning`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentcomm.backends.base import Backend
from agentcomm.calls import derive_seed
from agentcomm.dialogue.export import ModelRef, TrainConfig
from agentcomm.dialogue.formats import NATURAL, Format, pool
from agentcomm.dialogue.generate import Stage
from agentcomm.dialogue.played import PURPOSES, Ask, Played
from agentcomm.dialogue.reward import RewardTerms, quantile
from agentcomm.dialogue.rows import PreferenceRow, Row, preference_rows, rows, write_rows, write_text
from agentcomm.dialogue.search import break_even
from agentcomm.dialogue.select import Choice, Funnel, select, select_pairs
from agentcomm.dialogue.standing import by_format, means, spent, standing
from agentcomm.dialogue.tree import DialogueTree
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.held import held
from agentcomm.evaluation.rundir import plain, write_json
from agentcomm.evaluation.splits import hash_of
from agentcomm.evaluation.stats import paired_bootstrap
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import TrainingRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import content_id
from agentcomm.task import Item

if TYPE_CHECKING:
    from agentcomm.dialogue.learning import Learning

DONE, MANIFEST, BASE = "DONE", "manifest.json", "base"


class Iteration:
    """One iteration of a :class:`~agentcomm.dialogue.learning.Learning`."""

    def __init__(
        self, learning: Learning, ledger: Ledger, number: int, before: tuple[dict[str, Any], ...]
    ) -> None:
        self.learning, self.ledger, self.number, self.before = learning, ledger, number, before
        self.config = learning.config
        self.step = self.config.step(number)
        self.folder = learning.folder(number)
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
        left_out = 0
        for choice in kept:
            one = played[choice.item][choice.sample]
            cut = {turn for turn, s in enumerate(one.spoken, 1) if s.capped and not config.keep_cut}
            left_out += len(cut)
            made += rows(
                learning.graph,
                one.ask.item,
                one.said,
                reward=choice.terms.total,
                iteration=self.number,
                cut=cut,
            )
        return made, {**asdict(funnel), "cut": left_out, "rows": len(made)}, normaliser

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
            cut = {s.said for p in played for s in p.spoken if s.capped and not config.keep_cut}
            whole = [pair for pair in pairs if pair.chosen not in cut]
            made += preference_rows(learning.graph, item, whole, iteration=self.number)
            sums.update(
                {
                    "items": 1,
                    "selectable": funnel.selectable,
                    "passed": funnel.passed,
                    "kept": funnel.kept,
                    "cut": len(pairs) - len(whole),
                }
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
        found: dict[str, Any] = {"normaliser": normaliser, "before": standing(before), "place": list(ours)}
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
                "after": standing(after),
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
            "config_sha256": content_id(learning.identity()),
            "items": [hash_of(i) for i in learning.learn],
            "model_in": self.model_in,
            "normaliser": normaliser,
            "readability": learning.readability.name,
            "dialogues": len(main),
            "failed": sum(p.score is None for p in main),
            "unmarked": sum(p.score is not None and not p.marked for p in main),
            "agreed": sum(p.score is not None and p.agreed is True for p in main),
            "funnel": funnel,
            "reward": means([p.terms for p in main if p.terms is not None]),
            "guards": dict(sorted(Counter(g for p in main if p.terms for g in p.terms.guards).items())),
            "formats": by_format(main) if self.step.from_pool else None,
            "nothing": None if found else self._nothing(main, funnel),
        }

    def _nothing(self, main: Sequence[Played], funnel: Mapping[str, Any]) -> str:
        """Why nothing was selected."""
        there = [p for p in main if p.terms is not None]
        config = self.config
        if not there:
            why = next((p.failure for p in main if p.failure), "too few of an item came to their end")
            return f"every dialogue failed ({why})"
        if not any(p.marked or p.score for p in there):
            return (
                "no dialogue marked an answer (<A>answer</A>); raise the agents' max_tokens or rounds, take a "
                "model that follows the instruction, or ask for the answer at the end (-G answer=asked)"
            )
        if funnel["kept"] and funnel["cut"]:
            return (
                f"what was selected was cut off by the limit on tokens ({funnel['cut']} messages), and a "
                "sentence without its end is nothing to imitate; raise the agents' max_tokens (or keep_cut, --keep-cut)"
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
