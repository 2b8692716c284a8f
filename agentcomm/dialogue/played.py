"""Played: a dialogue that is to be played, one that was, and the number it has in the ledger.

Deliberately absent: playing (:mod:`agentcomm.dialogue.generate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from agentcomm.dialogue.marks import last_mark
from agentcomm.dialogue.reward import Dialogue, RewardTerms, Utterance
from agentcomm.dialogue.tree import Said
from agentcomm.errors import ConfigError
from agentcomm.graph import AgentGraph
from agentcomm.ledger.rows import CallRow
from agentcomm.message import Message
from agentcomm.schedule import Schedule
from agentcomm.task import Item

PURPOSES = ("calibrate", "generate", "search", "accept")
READS = "score"
"""The purpose that reading messages for their likelihood has in the bill."""
READER = "readability"
"""Under this name the calls of a scorer stand in the ledger."""
_DRAWS = 100_000


def sample_of(iteration: int, purpose: str, draw: int) -> int:
    """The number under which a dialogue's episode stands in the ledger; one for each item and place."""
    if not 0 <= draw < _DRAWS:
        raise ConfigError(f"{draw} dialogues of one item in an iteration; there is room for {_DRAWS}")
    return (iteration * len(PURPOSES) + PURPOSES.index(purpose)) * _DRAWS + draw


def purpose_of(sample: int) -> str:
    """The reverse of :func:`sample_of`.

    >>> purpose_of(sample_of(3, "search", 7))
    'search'
    """
    return PURPOSES[sample // _DRAWS % len(PURPOSES)]


def iteration_of(sample: int) -> int:
    """The iteration of :func:`sample_of`."""
    return sample // _DRAWS // len(PURPOSES)


class Spoken(NamedTuple):
    """A message, its tokens (``None`` where the server said nothing), and whether a limit cut it off.

    ``written`` are the server's output tokens, ``hidden`` those of them that nobody reads, ``read`` its
    input tokens.
    """

    said: Said
    written: int | None = None
    hidden: int = 0
    read: int | None = None
    capped: bool = False

    @classmethod
    def of(cls, call: CallRow) -> Self:
        return cls(
            Said(call.agent, call.reply_text or ""),
            call.output_tokens,
            call.reasoning_tokens or 0,
            call.input_tokens,
            call.finish_reason == "length",
        )


class Ask(NamedTuple):
    """A dialogue to be played: about what, by whom, for what, and what was said before it."""

    item: Item
    graph: AgentGraph
    iteration: int
    purpose: str
    draw: int = 0
    format: str = "natural"
    before: tuple[Spoken, ...] = ()
    origin: int = 0

    @property
    def sample(self) -> int:
        return sample_of(self.iteration, self.purpose, self.draw)


@dataclass(frozen=True)
class Played:
    """A dialogue that was played; ``score`` is ``None``, and ``failure`` says why, where a call failed.

    ``terms`` is its reward, ``None`` before it is known and for a failure.
    """

    ask: Ask
    spoken: tuple[Spoken, ...] = ()
    score: float | None = None
    failure: str = ""
    nlls: tuple[float | None, ...] = ()
    terms: RewardTerms | None = None

    @property
    def said(self) -> tuple[Said, ...]:
        return tuple(s.said for s in self.spoken)

    @property
    def marked(self) -> bool:
        """Whether anybody gave an answer."""
        return any(last_mark(s.said.text) is not None for s in self.spoken)

    @property
    def agreed(self) -> bool | None:
        """Whether the graph's stop rule ended it; ``False``: its rounds ran out. ``None`` without a rule."""
        stop = self.ask.graph.stop
        if stop is None:
            return None
        return stop.over([Message(s.said.agent, 1, s.said.text) for s in self.spoken])

    @property
    def tokens(self) -> dict[str, int]:
        """Counts by what is counted, those of messages before it included; unknown is missing."""
        found: dict[str, int] = {}
        written = [s.written for s in self.spoken if s.written is not None]
        if len(written) == len(self.spoken):
            found["completion"] = sum(written)
            found["message"] = sum(written) - sum(s.hidden for s in self.spoken)
            read = [s.read for s in self.spoken if s.read is not None]
            if len(read) == len(self.spoken):
                found["total"] = sum(written) + sum(read)
        return found

    @property
    def dialogue(self) -> Dialogue | None:
        """As it is rewarded; ``None`` for a failure."""
        if self.score is None:
            return None
        nlls = self.nlls or (None,) * len(self.spoken)
        said = tuple(
            Utterance(s.said.agent, s.said.text, nll, s.capped)
            for s, nll in zip(self.spoken, nlls, strict=True)
        )
        return Dialogue(self.score, said, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """A line of ``dialogues.jsonl``."""
        ask = self.ask
        return {
            "item": ask.item.id,
            "sample": ask.sample,
            "purpose": ask.purpose,
            "draw": ask.draw,
            "origin": ask.origin,
            "format": ask.format,
            "messages": [[*s.said] for s in self.spoken],
            "score": self.score,
            "agreed": None if self.score is None else self.agreed,
            "failure": self.failure or None,
            "tokens": self.tokens,
            "nlls": [None if x is None or math.isnan(x) else x for x in self.nlls],
            "reward": None if self.terms is None else self.terms.to_dict(),
        }


def places(graph: AgentGraph) -> list[tuple[int, str]]:
    """(round, agent) of every turn of a model, in the order of speaking.

    Raises
    ------
    ConfigError
        For a graph whose dialogues can't be learned from: agents that speak at the same time, or
        channels, under which what is said isn't what is read.
    """
    if any(edge.channel is not None for edge in graph.edges):
        raise ConfigError("agents learn to speak on edges without channels; take --channel off for training")
    found: list[tuple[int, str]] = []
    for wave in Schedule.of(graph).waves:
        speakers = [a for a in wave.agents if graph.by_name[a].act is None]
        if len(speakers) > 1:
            raise ConfigError(
                f"{' and '.join(speakers)} speak at the same time; dialogues are learned from teams that speak "
                "in turn, such as information_exchange or debate_pair"
            )
        found += [(wave.round, agent) for agent in speakers]
    return found
