"""Generate: dialogues to learn from, each paid once, with every component of its reward on record.

A :class:`Stage` plays dialogues of one model into a ledger: whole ones, or ones that go on from what
was said before (a tree's node). All are under phase ``learn``. What a dialogue was for, its format and
its reward are a row of the ledger's table ``dialogues``; the same call after an interruption takes from
the ledger what is there and plays the rest. Seeds derive from (run seed, item, iteration, purpose,
number, agent, round), so the order of arrival changes nothing.

A dialogue in which a call failed is a failure: it leaves its group and is never scored 0. It is on
record for good once its group is; before that (a server that went away) it is tried again.

Deliberately absent: which dialogues are learned from (:mod:`agentcomm.dialogue.select`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Self

import anyio
import anyio.to_thread
import numpy as np

from agentcomm.api import check_models
from agentcomm.backends.base import Backend
from agentcomm.calls import Calls, derive_seed
from agentcomm.dialogue.marks import without_marks
from agentcomm.dialogue.played import READER, Ask, Played, Spoken, places
from agentcomm.dialogue.readability import OFF, Readability
from agentcomm.dialogue.reward import RewardConfig, count, group_max, quantile, reward
from agentcomm.dialogue.tree import DialogueTree
from agentcomm.episode import Turns, run_episode
from agentcomm.errors import ConfigError, RunError, TaskError
from agentcomm.evaluation.run import Progress, episode_row, in_flight, score_of
from agentcomm.executors.plain import PlainExecutor
from agentcomm.graph import AgentGraph
from agentcomm.ledger.limits import Scope
from agentcomm.ledger.redact import Redactor
from agentcomm.ledger.rows import CallRow, DialogueRow, EpisodeRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import Delivery, Message, content_id
from agentcomm.options import RunOptions
from agentcomm.schedule import Inbox, Schedule, TurnRecord
from agentcomm.task import Item, Task

HOPELESS = 8
"""So many dialogues that all fail, before any has succeeded, end learning."""


@dataclass
class _Continued(Turns):
    """The turns of an episode whose first messages were said before; those cost nothing."""

    before: Mapping[tuple[int, str], str] = field(default_factory=dict)

    async def act(self, inbox: Inbox) -> TurnRecord:
        text = self.before.get((inbox.round, inbox.agent))
        if text is None:
            return await super().act(inbox)
        read = tuple(Delivery(edge.key, message, message.text) for edge, message in inbox.letters)
        said = Message(sender=inbox.agent, round=inbox.round, text=text, item=self.item.id)
        return TurnRecord(inbox.agent, inbox.round, read, said)


class Stage:
    """Where one model's dialogues are played; an async context manager.

    Parameters
    ----------
    ledger:
        What was paid and what came of it.
    task:
        Scores the answers.
    model, options:
        As for :func:`agentcomm.evaluate`; ``options.temperature`` is that of the dialogues.
    model_name:
        What the dialogues' rows call the model.
    config, readability:
        What is rewarded.
    """

    def __init__(
        self,
        ledger: Ledger,
        task: Task,
        model: str | Backend | None,
        options: RunOptions,
        *,
        model_name: str,
        config: RewardConfig,
        readability: Readability,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.ledger, self.task, self.model, self.options = ledger, task, model, options
        self.model_name, self.config, self.readability = model_name, config, readability
        self.progress = Progress(total=0)
        self._on_progress = on_progress
        self._secrets = Redactor(options.secrets)
        self._executor = PlainExecutor()
        self._reading = anyio.Lock()
        self._played = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            calls = self.options.calls(self.ledger, self.model, resuming=True, on_row=self._heard)
            for row in self.ledger.calls(texts=False):
                if row.agent != READER:  # no request to anybody
                    calls.scope.charge_past(row)
            self.calls: Calls = await stack.enter_async_context(calls)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    def _heard(self, row: CallRow) -> None:
        self.progress.add_call(row)

    # -- many ------------------------------------------------------------------------------------

    async def groups(
        self, asked: Sequence[Sequence[Ask]], normaliser: float | None = None
    ) -> list[list[Played]]:
        """The dialogues of each group with their rewards; ``None`` normalises by a group's longest.

        Raises
        ------
        UserError
            For what would fail every dialogue, and where nothing further could succeed (a spent limit).
        RunError
            If the first :data:`HOPELESS` dialogues all fail.
        """
        asked = [list(group) for group in asked]
        found: list[list[Played]] = [[] for _ in asked]
        wide = await self._begin([ask for group in asked for ask in group], len(asked))

        async def one(i: int) -> None:
            found[i] = await self.group(asked[i], normaliser)

        await _side_by_side(one, range(len(asked)), wide)
        return found

    async def group(self, asks: Sequence[Ask], normaliser: float | None = None) -> list[Played]:
        """The dialogues about one item that are judged together."""
        return await self._judge(await self._played_all(asks, len(asks)), normaliser)

    async def calibrated(
        self, asks: Sequence[Ask], share: float, normaliser: float | None = None
    ) -> tuple[float, list[Played]]:
        """Dialogues on distinct items, judged by the quantile of their own tokens where none is given.

        Raises
        ------
        TaskError
            If all fail.
        """
        played = await self._played_all(asks, await self._begin(asks, len(asks)))
        if normaliser is None:
            counts = [count(d, self.config.count) for p in played if (d := p.dialogue) is not None]
            if not counts:
                raise TaskError(
                    f"every dialogue failed ({played[0].failure}); mend it and repeat the command"
                )
            normaliser = quantile(counts, share)
        judged: list[list[Played]] = [[] for _ in played]

        async def one(i: int) -> None:
            judged[i] = await self._judge([played[i]], normaliser)

        await _side_by_side(one, range(len(played)), 2)
        return normaliser, [p for group in judged for p in group]

    async def _played_all(self, asks: Sequence[Ask], wide: int) -> list[Played]:
        played: list[Played | None] = [None] * len(asks)

        async def one(i: int) -> None:
            played[i] = await self._play(asks[i])

        await _side_by_side(one, range(len(asks)), wide)
        return [p for p in played if p is not None]

    async def grow(
        self,
        item: Item,
        graph: AgentGraph,
        iteration: int,
        normaliser: float,
        *,
        expansions: int,
        rollouts: int,
        seed: int,
        **tree_options: Any,
    ) -> tuple[DialogueTree, list[Played]]:
        """A tree of dialogues about one item, grown from the same seed to the same tree."""
        tree = DialogueTree(item=item.id, **tree_options)
        rng = np.random.default_rng([seed, iteration, derive_seed(item.content_hash)])
        spoken: dict[int, Spoken] = {}
        found: list[Played] = []
        for expansion in range(expansions):
            start = tree.choose(rng)
            if start is None:
                break
            before = tuple(spoken[i] for i in _way(tree, start))
            asks = [
                Ask(item, graph, iteration, "search", expansion * rollouts + k, before=before, origin=start)
                for k in range(rollouts)
            ]
            for played in await self.group(asks, normaliser):
                found.append(played)
                if played.terms is None or not math.isfinite(played.terms.total):
                    continue
                new = played.spoken[len(before) :]
                end = tree.add(start, [s.said for s in new], played.terms.total)
                for node, message in zip(_way(tree, end)[len(before) :], new, strict=True):
                    spoken.setdefault(node, message)
        return tree, found

    async def trees(
        self, items: Sequence[Item], graph: AgentGraph, iteration: int, normaliser: float, **options: Any
    ) -> list[tuple[DialogueTree, list[Played]]]:
        """:meth:`grow` for every item, side by side."""
        found: list[tuple[DialogueTree, list[Played]] | None] = [None] * len(items)
        asked = [
            Ask(item, graph, iteration, "search", draw)
            for item in items
            for draw in range(options["expansions"] * options["rollouts"])
        ]
        wide = await self._begin(asked, len(items) * options["expansions"])

        async def one(i: int) -> None:
            found[i] = await self.grow(items[i], graph, iteration, normaliser, **options)

        await _side_by_side(one, range(len(items)), wide)
        return [f for f in found if f is not None]

    # -- one -------------------------------------------------------------------------------------

    async def _play(self, ask: Ask) -> Played:
        rows = self.ledger.episodes(item=ask.item.id, sample=ask.sample)
        known = rows[0] if rows else None
        if known is None or (_failed(known) and not self._rows_of(ask)):
            known = await self._perform(ask)
        played = self._recovered(ask, known)
        self._count(known)
        return played

    async def _perform(self, ask: Ask) -> EpisodeRow:
        options, calls = self.options, self.calls
        speaking = places(ask.graph)[: len(ask.before)]
        said = {place: s.said.text for place, s in zip(speaking, ask.before, strict=True)}
        turns = _Continued(
            calls,
            Schedule.of(ask.graph),
            ask.item,
            sample=ask.sample,
            phase="learn",
            draw=derive_seed(ask.iteration, ask.purpose, ask.draw),
            scope=Scope("item", options.item_limits, calls.scope),
            agent_limits=options.agent_limits,
            before=said,
        )
        episode = await run_episode(self._executor, turns)
        for failure in episode.failures:
            if failure.fatal and failure.scope != "item":
                raise ConfigError(
                    f"learning stopped: {self.ledger.redact(failure.reason)}; mend it and repeat the command, "
                    "nothing is paid twice"
                )
        row = episode_row(episode, await score_of(self.task, episode), None, self._secrets)
        if episode.failures and row.failure is None:
            first = episode.failures[0]
            row = replace(
                row, failure=self._secrets.text(f"{first.sender}, round {first.round}: {first.reason}")
            )
        await self.ledger.record_episode(row)
        return row

    def _recovered(self, ask: Ask, row: EpisodeRow) -> Played:
        """A dialogue as the ledger has it."""
        if _failed(row) or row.score is None:
            return Played(ask, failure=row.failure or "it came to no answer that could be scored")
        order = {place: i for i, place in enumerate(places(ask.graph))}
        calls = {
            order[c.round, c.agent]: c  # the last attempt counts
            for c in self.ledger.calls(item=ask.item.id, sample=ask.sample)
            if c.error_kind is None and c.edge is None and (c.round, c.agent) in order
        }
        spoken = (*ask.before, *(Spoken.of(calls[i]) for i in sorted(calls)))
        played = Played(ask, spoken, row.score)
        if recorded := self._rows_of(ask):
            played = replace(played, nlls=recorded[0].nlls)
        return played

    # -- rewards ---------------------------------------------------------------------------------

    def _rows_of(self, ask: Ask) -> list[DialogueRow]:
        return self.ledger.dialogues(item=ask.item.id, sample=ask.sample)

    async def _judge(self, group: list[Played], normaliser: float | None) -> list[Played]:
        """Rewards; what is on record keeps its likelihoods, and its normaliser where no other is given."""
        recorded = [rows[0] for p in group if (rows := self._rows_of(p.ask))]
        if len(recorded) < len(group):
            group = await self._read(group)
        there = [d for p in group if (d := p.dialogue) is not None]
        if normaliser is None:
            normaliser = next((r.normaliser for r in recorded if r.normaliser is not None), None)
        if normaliser is None and len(there) >= 2:
            normaliser = group_max(there, self.config.count)
        judged = [
            p
            if normaliser is None or (d := p.dialogue) is None
            else replace(p, terms=reward(d, normaliser, self.config))
            for p in group
        ]
        if len(recorded) < len(group):
            await self.ledger.record_dialogues([self._row(p) for p in judged])
        return judged

    def _row(self, played: Played) -> DialogueRow:
        ask, terms, tokens = played.ask, played.terms, played.tokens
        row = DialogueRow(
            item=ask.item.id,
            sample=ask.sample,
            iteration=ask.iteration,
            purpose=ask.purpose,
            draw=ask.draw,
            format=ask.format,
            model=self.model_name,
            origin=ask.origin,
            message_tokens=tokens.get("message"),
            completion_tokens=tokens.get("completion"),
            total_tokens=tokens.get("total"),
            readability=self.readability.name,
            nlls=played.nlls,
            task=played.score,
        )
        if terms is None:
            return row
        return replace(
            row,
            tokens=terms.tokens,
            normaliser=terms.normaliser,
            ratio=terms.ratio,
            nll=terms.nll,
            task_term=terms.task_term,
            token_term=terms.token_term,
            loss_term=terms.loss_term,
            total=terms.total,
            guards=terms.guards,
            selectable=terms.selectable,
        )

    async def _read(self, group: list[Played]) -> list[Played]:
        """The dialogues with the likelihood of each message, marks taken off; equal texts are read once."""
        if self.readability.name == OFF or self.config.loss_weight == 0:
            return group
        texts = {
            text: math.nan
            for played in group
            if played.score is not None and not played.nlls
            for s in played.spoken
            if (text := without_marks(s.said.text))
        }
        if texts:
            async with self._reading:  # a model in this process reads one batch at a time
                read = await anyio.to_thread.run_sync(self.readability.read, list(texts))
            texts.update(zip(texts, read.nlls, strict=True))
            await self._bill(group[0].ask, list(texts), read.tokens)
        found = []
        for played in group:
            if played.score is not None and not played.nlls:
                plain = (without_marks(s.said.text) for s in played.spoken)
                played = replace(played, nlls=tuple(texts[t] if t else None for t in plain))
            found.append(played)
        return found

    async def _bill(self, ask: Ask, texts: list[str], tokens: int) -> None:
        if not tokens:
            return
        row = CallRow(
            # The same work done again after an interruption is the same row.
            id=content_id(READER, ask.item.id, ask.sample, self.readability.name, texts)[:32],
            item=ask.item.id,
            sample=ask.sample,
            round=0,
            agent=READER,
            attempt=1,
            phase="learn",
            model=self.readability.name,
            request_id=content_id(self.readability.name, texts),
            started_at=0.0,
            input_tokens=tokens,
            output_tokens=0,
        )
        await self.ledger.finish_call(row)
        self.progress.add_call(row)

    # -- progress --------------------------------------------------------------------------------

    async def _begin(self, asks: Sequence[Ask], groups: int) -> int:
        """Makes sure that the model is there, if it is needed; returns how many groups to play side by side."""
        self.progress = Progress(total=len(asks))
        finished = {(e.item, e.sample) for e in self.ledger.episodes() if not _failed(e)}
        if not asks or all((a.item.id, a.sample) in finished for a in asks):
            return 1
        await check_models(self.calls, asks[0].graph)
        return 1 + in_flight(self.calls, asks[0].graph) * groups // len(asks)

    def _count(self, row: EpisodeRow) -> None:
        self.progress.add_episode(replace(row, status="failed") if _failed(row) else row)
        if self.progress.failed >= HOPELESS and self.progress.failed == self.progress.done:
            raise RunError(
                f"the first {HOPELESS} dialogues all failed ({row.failure}); mend it and repeat the command"
            )
        if self._on_progress is not None:
            self._on_progress(self.progress)


def _failed(row: EpisodeRow) -> bool:
    return row.status == "failed" or row.failures > 0


def _way(tree: DialogueTree, node: int) -> list[int]:
    """The nodes from the root (left out) to ``node``."""
    found: list[int] = []
    at: int | None = node
    while at:
        found.append(at)
        at = tree.nodes[at].parent
    return found[::-1]


async def _side_by_side(work: Callable[[int], Any], places: Iterable[int], most: int) -> None:
    """``work`` on each of ``places``; the first error is raised as it is, after what was in flight."""
    queue = iter(places)
    errors: list[Exception] = []

    async def worker() -> None:
        for place in queue:
            if errors:
                return
            try:
                await work(place)
            except Exception as error:
                errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(max(1, most)):
            group.start_soon(worker)
    if errors:
        raise errors[0]
