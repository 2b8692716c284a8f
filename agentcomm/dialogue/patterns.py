"""Patterns: what the three settings of Learning through Communication need beside models.

    monologue   one model thinks and acts in :class:`Cabinet`, a small text environment
    dialogue    several models talk, with :class:`Library`, a tool that finds text
    analogue    a student answers, a teacher solves and poses a similar problem; :func:`answers`

(arXiv 2310.01444; ``dialogue.md`` section 8. Environment, tool and words are our own.) Environment and
tool are function agents and keep nothing: what they say follows from what is said to them.

Deliberately absent: rewards over tokens (:mod:`agentcomm.dialogue.buffer`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentcomm.dialogue.marks import Kind, last_mark, same_answer
from agentcomm.message import Message
from agentcomm.prompting import Turn
from agentcomm.schedule import TurnRecord
from agentcomm.task import Item

_DO = re.compile(r"^\W*do\s*:\s*(?P<verb>[a-z]+)\b[ \t]*(?P<what>.*)$", re.IGNORECASE | re.MULTILINE)
_FIND = re.compile(r"^\W*find\s*:[ \t]*(?P<what>.+)$", re.IGNORECASE | re.MULTILINE)
_PROBLEM = re.compile(r"<P>(.*?)</P>", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"\w+")

ACTIONS = "do: look, do: open NAME or do: answer TEXT"


@dataclass(frozen=True)
class Cabinet:
    """A cabinet whose drawers are the item's views: an agent opens them and answers.

    It understands the last line that begins with ``do:``; everything else is thought. What is answered
    is said as a mark, which ends the game.
    """

    async def __call__(self, turn: Turn) -> str:
        said = "\n".join(d.text for d in turn.inbox)
        actions = list(_DO.finditer(said))
        if not actions:
            return f"Nothing was done. Write {ACTIONS}."
        verb, what = actions[-1]["verb"].lower(), actions[-1]["what"].strip()
        return act(turn.item, verb, what)


def act(item: Item, verb: str, what: str) -> str:
    """What a cabinet says to one action.

    >>> act(Item("1", "Who?", views={"s1": "Ada."}), "open", "s1.")
    'In drawer s1: Ada.'
    """
    names = ", ".join(item.views) or "none"
    if verb == "look":
        return f"Drawers: {names}."
    if verb == "open":
        plain = what.strip(" .\"'").removeprefix("drawer ")
        if plain not in item.views:
            return f"There is no drawer {plain or 'without a name'}. Drawers: {names}."
        return f"In drawer {plain}: {item.views[plain] or 'nothing.'}"
    if verb == "answer" and what:
        return f"Done. <A>{last_mark(what) or what}</A>"
    return f"That can't be done. Write {ACTIONS}."


@dataclass(frozen=True)
class Library:
    """Finds the passages of the item that share most words with what was asked for by ``find: WORDS``.

    Passages are the lines of the item's context and views; ``most`` of them are told, best first.
    """

    most: int = 2

    async def __call__(self, turn: Turn) -> str:
        wanted = [m["what"] for d in turn.inbox for m in _FIND.finditer(d.text)]
        if not wanted:
            return "Nothing was looked for."
        found = find(turn.item, " ".join(wanted), self.most)
        return "Found: " + " / ".join(found) if found else "Nothing was found."


def find(item: Item, words: str, most: int = 2) -> list[str]:
    """The passages with most of the words, in the item's order where they have as many; none with no word."""
    wanted = {w.casefold() for w in _WORD.findall(words)}
    text = "\n".join([item.context, *item.views.values()])
    passages = [line.strip() for line in text.splitlines() if line.strip()]
    counted = [
        (len(wanted & {w.casefold() for w in _WORD.findall(p)}), -n, p) for n, p in enumerate(passages)
    ]
    return [p for count, _, p in sorted(counted, reverse=True)[:most] if count]


def problem_in(text: str) -> str | None:
    """The last problem that a message poses as ``<P>problem</P>``; ``None`` if it poses none.

    >>> problem_in("So 5. <P>What is 2+2?</P>")
    'What is 2+2?'
    """
    posed = [p.strip() for p in _PROBLEM.findall(text) if p.strip()]
    return posed[-1] if posed else None


def answers(
    records: Iterable[TurnRecord],
    score: float,
    *,
    student: str = "student",
    teacher: str = "teacher",
    kind: Kind = "number",
    right: float = 0.5,
) -> Mapping[int, float]:
    """The rewards of a student's answers by round: 1 or -1 for each that can be judged.

    Parameters
    ----------
    score:
        The task's, for the answer to the item (round 1); right from ``right`` on.

    Returns
    -------
    Later rounds are judged by the teacher's own solution in the same round. A round in which the
    teacher had posed no problem, or marks no answer, is not in it: nothing is known of that answer.
    """
    said: dict[tuple[int, str], str] = {
        (r.round, r.agent): r.outcome.text for r in records if isinstance(r.outcome, Message)
    }
    found: dict[int, float] = {}
    for (round, agent), text in sorted(said.items()):
        if agent != student:
            continue
        if round == 1:
            found[round] = 1.0 if score >= right else -1.0
            continue
        theirs = last_mark(said.get((round, teacher), ""))
        if problem_in(said.get((round - 1, teacher), "")) is None or theirs is None:
            continue
        ours = last_mark(text)
        found[round] = 1.0 if ours is not None and same_answer(kind)(ours, theirs) else -1.0
    return found
