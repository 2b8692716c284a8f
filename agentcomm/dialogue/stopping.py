"""Stop rules: when a dialogue is over, from what was said so far (``dialogue.md`` section 1).

    agreement   the latest marks of two *different* agents are equal (the paper's wording)
    repeat      one agent marks the same answer in two consecutive own turns, with another's
                message between them
    any_two     a new mark equals the mark before it, whoever gave it (as released; one agent that
                repeats itself counts as agreement: for reproduction only)
    marked      one agent has marked an answer (an environment that says that the game is over)
    turns       one agent has spoken so often

:class:`Verdict` is the decision agent that goes with them: it makes no model call and answers
with the last mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from agentcomm.dialogue.marks import Kind, last_mark, same_answer
from agentcomm.errors import ConfigError
from agentcomm.graph import StopRule
from agentcomm.message import Message
from agentcomm.prompting import Turn


@dataclass(frozen=True)
class Agreement:
    """Over when the latest marks of two different agents are equal."""

    kind: Kind = "text"
    name: ClassVar[str] = "agreement"

    def __post_init__(self) -> None:
        same_answer(self.kind)

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, **asdict(self)}

    def over(self, messages: Sequence[Message]) -> bool:
        latest: dict[str, str] = {}
        for message in messages:
            if (answer := last_mark(message.text)) is not None:
                latest[message.sender] = answer
        answers, same = list(latest.values()), same_answer(self.kind)
        return any(same(a, b) for i, a in enumerate(answers) for b in answers[i + 1 :])


@dataclass(frozen=True)
class Repeat:
    """Over when ``agent`` marks the same answer in two consecutive own turns, another's words between them."""

    agent: str
    kind: Kind = "text"
    name: ClassVar[str] = "repeat"

    def __post_init__(self) -> None:
        same_answer(self.kind)

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, **asdict(self)}

    def over(self, messages: Sequence[Message]) -> bool:
        own = [i for i, m in enumerate(messages) if m.sender == self.agent]
        if len(own) < 2 or own[-1] - own[-2] < 2:
            return False
        before, now = (last_mark(messages[i].text) for i in own[-2:])
        return before is not None and now is not None and same_answer(self.kind)(before, now)


@dataclass(frozen=True)
class AnyTwo:
    """Over when a mark equals the mark before it, whoever gave it."""

    kind: Kind = "text"
    name: ClassVar[str] = "any_two"

    def __post_init__(self) -> None:
        same_answer(self.kind)

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, **asdict(self)}

    def over(self, messages: Sequence[Message]) -> bool:
        answers = [a for m in messages if (a := last_mark(m.text)) is not None]
        return len(answers) > 1 and same_answer(self.kind)(*answers[-2:])


@dataclass(frozen=True)
class Marked:
    """Over when ``agent`` has marked an answer."""

    agent: str
    name: ClassVar[str] = "marked"

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, **asdict(self)}

    def over(self, messages: Sequence[Message]) -> bool:
        return any(m.sender == self.agent and last_mark(m.text) is not None for m in messages)


@dataclass(frozen=True)
class Turns:
    """Over when ``agent`` has spoken ``times`` times."""

    agent: str
    times: int
    name: ClassVar[str] = "turns"

    def spec(self) -> dict[str, Any]:
        return {"rule": self.name, **asdict(self)}

    def over(self, messages: Sequence[Message]) -> bool:
        return sum(m.sender == self.agent for m in messages) >= self.times


_RULES: Mapping[str, type[Agreement | Repeat | AnyTwo | Marked | Turns]] = {
    r.name: r for r in (Agreement, Repeat, AnyTwo, Marked, Turns)
}


def from_spec(spec: Mapping[str, Any]) -> StopRule:
    """The rule that ``spec()`` described.

    Raises
    ------
    ConfigError
        For an unknown rule, or options that it doesn't have.
    """
    name, options = str(spec.get("rule")), {k: v for k, v in spec.items() if k != "rule"}
    if name not in _RULES:
        raise ConfigError(f"unknown stop rule {name!r}; there are {', '.join(_RULES)}")
    try:
        return _RULES[name](**options)
    except TypeError as error:
        raise ConfigError(f"stop rule {name}: {error}") from error


NO_ANSWER = "no answer was marked"


@dataclass(frozen=True)
class Verdict:
    """Ends a dialogue without a model call: says the last mark (of ``agent`` only, if one is named).

    ``first`` says the first one instead. Without any mark it says :data:`NO_ANSWER`, which no scorer
    reads as an answer.
    """

    agent: str | None = None
    first: bool = False

    async def __call__(self, turn: Turn) -> str:
        answer = None
        for delivery in turn.inbox:
            if self.agent in (None, delivery.edge.sender):
                answer = last_mark(delivery.text) or answer
                if self.first and answer is not None:
                    break
        return f"Answer: {answer}" if answer is not None else NO_ANSWER
