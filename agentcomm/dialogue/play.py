"""Play: dialogues of a real team, one graph for each message format, paid once and resumable.

Every (format, purpose) is an evaluation of its own under phase ``learn``, in a directory of its
own: the same call continues after any interruption, and nothing that was answered is paid again.
What the dialogues cost is the sum over these ledgers.

Tokens of a dialogue: ``completion`` is what the server counted for its replies, ``message`` the same
without hidden reasoning, ``total`` prompts too. A retry is in the ledger, not in a dialogue's count.

:class:`Muse` asks one model for one text in the same way: what a reflective search writes with.

Deliberately absent: which format is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread

from agentcomm.backends.base import Backend
from agentcomm.dialogue.formats import Format
from agentcomm.dialogue.marks import without_marks
from agentcomm.dialogue.reward import Dialogue, Utterance
from agentcomm.dialogue.stopping import NO_ANSWER
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.run import Progress, Run, evaluate
from agentcomm.evaluation.splits import require_learn
from agentcomm.graph import Agent, AgentGraph
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import content_id
from agentcomm.options import RunOptions
from agentcomm.task import Item, Score, Task

GraphOf = Callable[[str], AgentGraph]
"""A team by the instruction that says how to write; ``""`` is natural language."""


@dataclass
class Team:
    """A real team as an :class:`~agentcomm.dialogue.search.Arena`.

    Parameters
    ----------
    graph_of:
        The team by its instruction.
    task:
        Scores the answers.
    learn, validate:
        Items that formats are chosen on, and those that the final comparison is on.
    model, options:
        As for :func:`agentcomm.evaluate`.
    folder:
        Where the ledgers are kept, one folder a format and purpose.
    limits:
        On everything that is played in this process, over all folders.
    ways:
        What else is done to the team under a format's id (demonstrations, say).
    readability:
        Gives messages their likelihood (:mod:`agentcomm.dialogue.readability`); ``None`` leaves it unknown.

    Raises
    ------
    TaskError
        If an item is of another split than its list says.
    """

    graph_of: GraphOf
    task: Task
    learn: Sequence[Item]
    validate: Sequence[Item]
    model: str | Backend | None
    folder: Path
    options: RunOptions | None = None
    on_progress: Callable[[str, Progress], None] | None = None
    limits: Limits = Limits()
    ways: dict[str, Callable[[AgentGraph], AgentGraph]] = field(default_factory=dict)
    readability: Reader | None = None

    def __post_init__(self) -> None:
        require_learn(self.learn)
        require_learn(self.validate, validate=True)
        if overlap := {i.content_hash for i in self.learn} & {i.content_hash for i in self.validate}:
            raise TaskError(
                f"{len(overlap)} items stand in both splits; choose on one and compare on the other"
            )
        self.paid: list[CallRow] = []
        self.read_tokens = 0
        self._beside: anyio.CapacityLimiter | None = None
        self._slots: int | None = None
        self._reading = anyio.Lock()

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        """One dialogue for each of ``items``, in their order; ``None`` where it failed.

        Raises
        ------
        ConfigError
            If there are not enough items.
        UserError
            For what would fail every item, and where nothing further could succeed (a spent limit).
        """
        source = self.validate if purpose == "accept" else self.learn
        if items and max(items) >= len(source):
            raise ConfigError(
                f"this search plays {max(items) + 1} items for {purpose!r}; there are {len(source)}: load more "
                f"(--limit), or plan a smaller search"
            )
        chosen = tuple(source[i] for i in items)
        # Places in a row are named by their ends, others by a hash.
        places = list(items)
        row = bool(places) and places == list(range(places[0], places[-1] + 1))
        where = f"{places[0]}-{places[-1] + 1}" if row else content_id(places)[:8]
        async with self._place(len(chosen)):
            await anyio.lowlevel.checkpoint()  # whoever had the place before may have ended the search
            groups = await self._groups(format, chosen, f"{purpose}-{where}-{format.id}", 1)
        return [None if played is None else played.dialogue for (played,) in groups]

    def _place(self, items: int) -> anyio.CapacityLimiter:
        """A place among the formats that are played beside each other: as many as fill the model's slots.

        A model with few slots keeps the prefix of one format cached instead. Under a limit they go
        one after another: what is left of it is known when the last one has ended.
        """
        if self._beside is None:
            self._beside = anyio.CapacityLimiter(1)
        if self._slots is None:
            self._slots = 1
            if self.limits == Limits() and self.model is not None:
                open_model = replace(self.options or RunOptions(), cache=None).resolver()
                model = open_model(self.model) if isinstance(self.model, str) else self.model
                self._slots = model.max_concurrency
        self._beside.total_tokens = max(1, self._slots // max(1, items))
        return self._beside

    async def sample(
        self, format: Format, items: Sequence[int], samples: int, purpose: str = "accept"
    ) -> list[list[Sampled | None]]:
        """``samples`` dialogues for each of ``items``, each with its answer; as :meth:`play`."""
        source = self.validate if purpose == "accept" else self.learn
        if items and max(items) >= len(source):
            raise ConfigError(
                f"{max(items) + 1} items are to be sampled; there are {len(source)}: load more (--limit)"
            )
        chosen = tuple(source[i] for i in items)
        return await self._groups(format, chosen, f"{purpose}-{samples}x{len(chosen)}-{format.id}", samples)

    async def _groups(
        self, format: Format, chosen: tuple[Item, ...], name: str, samples: int
    ) -> list[list[Sampled | None]]:
        graph = self.graph_of(format.text)
        if format.id in self.ways:
            graph = self.ways[format.id](graph)
        out = self.folder / name
        run, calls = await paid_run(
            graph,
            replace(self.task, items=chosen),
            self.model,
            out,
            name,
            self.options,
            left(self.limits, self.paid),
            samples=samples,
            on_progress=partial(self.on_progress, name) if self.on_progress else None,
        )
        self.paid += calls
        ended = {(e.item, e.sample): e for e in run.episodes if e.status == "ok" and e.score is not None}
        by_episode: dict[tuple[str, int], list[CallRow]] = {}
        for call in calls:
            if call.error_kind is None and call.edge is None:  # what a channel asked is not said
                by_episode.setdefault((call.item, call.sample), []).append(call)
        place = graph.index
        made: list[list[Sampled | None]] = []
        for item in chosen:
            group: list[Sampled | None] = []
            for sample in range(samples):
                episode = ended.get((item.id, sample))
                # A turn that failed inside left a gap: such a dialogue is no sample of the format.
                if episode is None or episode.score is None or episode.failures:
                    group.append(None)
                    continue
                # The last attempt counts.
                turns = {(c.round, place[c.agent]): c for c in by_episode.get((item.id, sample), ())}
                talk = dialogue(episode.score, [turns[k] for k in sorted(turns)])
                group.append(Sampled(talk, self._said(item, episode.answer)))
            made.append(group)
        return await self._read(made)

    def _said(self, item: Item, answer: str | None) -> str | None:
        """The answer as votes count it; ``None`` where none was marked."""
        if answer is None or answer == NO_ANSWER:
            return None
        if self.task.extract is None:
            return answer
        return self.task.extract(replace(item, answer=None), answer)

    async def _read(self, groups: list[list[Sampled | None]]) -> list[list[Sampled | None]]:
        """The dialogues with each message's likelihood, marks taken off; equal texts are read once."""
        if self.readability is None:
            return groups
        texts = sorted(
            {
                text
                for group in groups
                for played in group
                if played is not None
                for m in played.dialogue.messages
                if (text := without_marks(m.text))
            }
        )
        async with self._reading:
            read = await anyio.to_thread.run_sync(self.readability.read, texts)
        self.read_tokens += read.tokens
        nll = dict(zip(texts, read.nlls, strict=True))

        def scored(played: Sampled | None) -> Sampled | None:
            if played is None:
                return None
            said = tuple(replace(m, nll=nll.get(without_marks(m.text))) for m in played.dialogue.messages)
            return Sampled(replace(played.dialogue, messages=said), played.answer)

        return [[scored(p) for p in group] for group in groups]

    @property
    def paid_tokens(self) -> int:
        """Tokens of everything that was asked, read again from a ledger included, and of reading messages."""
        return self.read_tokens + tokens_of(self.paid)


class Sampled(NamedTuple):
    """A dialogue and the answer it came to, ``None`` if to none."""

    dialogue: Dialogue
    answer: str | None


class Reader(Protocol):
    """Mean nats per token of texts, and the tokens that reading them took."""

    def read(self, texts: Sequence[str]) -> Any: ...


@dataclass
class Muse:
    """Asks one model for texts, each paid once and resumable; ``paid`` are the calls."""

    model: str | Backend | None
    folder: Path
    options: RunOptions | None = None
    max_tokens: int = 512
    paid: list[CallRow] = field(default_factory=list)

    async def ask(self, prompt: str, limits: Limits = Limits()) -> str | None:
        """What the model says to ``prompt``; ``None`` where the call failed.

        Raises
        ------
        UserError
            For what would fail every call, and for a spent limit.
        """
        name = f"reflect-{content_id(prompt)[:12]}"
        writer = AgentGraph([Agent("writer", max_tokens=self.max_tokens)], decision="writer", system="")
        item = Item(id=name, question=prompt)
        task = Task("reflect", [item], lambda item, answer: Score(0.0))
        run, calls = await paid_run(
            writer, task, self.model, self.folder / name, name, self.options, left(limits, self.paid)
        )
        self.paid += calls
        return run.episodes[0].answer if run.episodes and run.episodes[0].status == "ok" else None


async def paid_run(
    graph: AgentGraph,
    task: Task,
    model: str | Backend | None,
    out: Path,
    name: str,
    options: RunOptions | None,
    limits: Limits,
    *,
    samples: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Run, list[CallRow]]:
    """A run under phase ``learn`` in its own directory, and all its calls.

    Raises
    ------
    ConfigError
        If nothing further could succeed (a spent limit, a server that is gone).
    """
    run = await evaluate(
        graph,
        task,
        model,
        out=out,
        name=name,
        phase="learn",
        samples=samples,
        on_progress=on_progress,
        options=replace(options or RunOptions(), limits=limits),
    )
    if run.stopped is not None:
        raise ConfigError(f"{name}: {run.stopped}; mend it and repeat the command, nothing is paid twice")
    with Ledger.open(out / "ledger.sqlite") as ledger:
        return run, ledger.calls()


def left(limits: Limits, paid: Sequence[CallRow]) -> Limits:
    """What is left of limits after calls; time is not counted over folders."""
    known = [c for c in paid if not c.cache_hit]
    spent = {
        "tokens": tokens_of(paid),
        "calls": len(known),
        "cost": sum(c.cost for c in known if c.cost is not None),
    }
    return replace(
        limits,
        **{k: max(0, most - spent[k]) for k in spent if (most := getattr(limits, k)) is not None},
    )


def tokens_of(calls: Sequence[CallRow]) -> int:
    """Input and output tokens of calls that were paid."""
    return sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in calls if not c.cache_hit)


def dialogue(score: float, turns: Sequence[CallRow]) -> Dialogue:
    """The dialogue of calls in the order of speaking; a count that a server left out is missing."""
    said = tuple(Utterance(c.agent, c.reply_text or "", capped=c.finish_reason == "length") for c in turns)
    tokens: dict[str, int] = {}
    outputs = [c.output_tokens for c in turns]
    inputs = [c.input_tokens for c in turns]
    written = [n for n in outputs if n is not None]
    if len(written) == len(outputs):
        tokens["completion"] = sum(written)
        tokens["message"] = sum(written) - sum(c.reasoning_tokens or 0 for c in turns)
        read = [n for n in inputs if n is not None]
        if len(read) == len(inputs):
            tokens["total"] = sum(written) + sum(read)
    return Dialogue(score, said, tokens)
