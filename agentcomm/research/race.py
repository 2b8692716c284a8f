"""RACE: a report against a reference report, by criteria made for the task (DeepResearch Bench's idea).

A judge weighs four dimensions and, in each, criteria of its own for the task; every weight set sums to 1.
Both reports get a score from 0 to 10 for each criterion, and::

    S       = sum over dimensions d of  w_d * sum over criteria c of  w_dc * s_dc
    overall = S_target / (S_target + S_reference)          0.5 is parity

Judges prefer what they read first (or last), so both orders are judged and averaged. A reply that can't
be read is a failure of the judge, never a low score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agentcomm.errors import ChannelError
from agentcomm.message import Delivery
from agentcomm.prompting import Turn
from agentcomm.research.replies import json_object

DIMENSIONS = ("comprehensiveness", "insight", "instruction_following", "readability")
MEANING = {
    "comprehensiveness": "it covers what the task asks for, with the facts that matter",
    "insight": "it relates and explains the facts instead of listing them",
    "instruction_following": "it does what the task says, no more and no less",
    "readability": "it is clear, ordered and well worded",
}
BEST = 10.0
CRITERIA_A_DIMENSION = 6
FIRST, SECOND = "target_first", "reference_first"
CRITERIA, VERDICT = "criteria", "verdict"


class Criterion(NamedTuple):
    """One thing to judge by: its dimension, its words and its weight in the whole (all sum to 1)."""

    dimension: str
    text: str
    weight: float


GENERIC = tuple(Criterion(d, MEANING[d], 1 / len(DIMENSIONS)) for d in DIMENSIONS)
"""Criteria that fit any task, of equal weight: for judges too small to make their own."""

Side = Literal["A", "B"]


def criteria_role(most: int = 3) -> str:
    """What the maker of criteria is told."""
    meanings = "; ".join(f"{name} ({MEANING[name]})" for name in DIMENSIONS)
    shape = '{"weight": 0.3, "criteria": [{"criterion": "...", "weight": 0.5}]}'
    return (
        "You will not answer the task above: you say how reports on it are to be judged. The dimensions are "
        f"{meanings}. Weigh the dimensions for this task, and give each of them 1 to {most} criteria, with weights: "
        "in one sentence each, what a good report on this very task has. The weights of the dimensions sum to "
        f"1, and so do those of the criteria of a dimension. Reply with one JSON object and nothing else, with the "
        f"keys {', '.join(DIMENSIONS)}, each like {shape}."
    )


def judge_role() -> str:
    """What a judge is told; the criteria reach it as a message, numbered."""
    return (
        "You compare two reports on the task above, A and B, by numbered criteria. For each criterion, and for "
        "each report, give a score from 0 (useless) to 10 (it could not be better). Judge what the reports say; "
        "their order and their length are no merit. Reply with one JSON object and nothing else: "
        '{"scores": [{"criterion": 1, "A": 5, "B": 5}]}, with every criterion once.'
    )


def criteria_schema() -> dict[str, Any]:
    """The JSON schema of criteria."""
    criterion = _object(criterion={"type": "string"}, weight={"type": "number"})
    dimension = _object(weight={"type": "number"}, criteria={"type": "array", "items": criterion})
    return {"title": "criteria", **_object(**dict.fromkeys(DIMENSIONS, dimension))}


def judge_schema() -> dict[str, Any]:
    """The JSON schema of a judgement."""
    entry = _object(criterion={"type": "integer"}, A={"type": "number"}, B={"type": "number"})
    return {"title": "judgement", **_object(scores={"type": "array", "items": entry})}


def read_criteria(text: str) -> tuple[Criterion, ...]:
    """The criteria in a judge's reply, their weights made to sum to 1.

    Raises
    ------
    ChannelError
        If a dimension is missing, has no criterion, or a weight is no number of at least 0.
    """
    found = json_object(text)
    if found is None:
        raise ChannelError("the criteria can't be read: no JSON object in the judge's reply")
    weights: dict[str, float] = {}
    inner: dict[str, list[tuple[str, float]]] = {}
    for name in DIMENSIONS:
        entry = found.get(name)
        listed = entry.get("criteria") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(listed, list) or not listed:
            raise ChannelError(f"the criteria can't be read: none for {name}")
        weights[name] = _weight(entry.get("weight"), name)
        inner[name] = []
        for criterion in listed[:CRITERIA_A_DIMENSION]:
            words = criterion.get("criterion") if isinstance(criterion, Mapping) else None
            if not isinstance(words, str) or not words.strip():
                raise ChannelError(f"the criteria can't be read: one for {name} has no words")
            inner[name].append((" ".join(words.split()), _weight(criterion.get("weight"), name)))
    made: list[Criterion] = []
    for name, share in zip(DIMENSIONS, _shares(weights.values(), "the dimensions"), strict=True):
        parts = _shares((weight for _, weight in inner[name]), name)
        made += [Criterion(name, words, share * p) for (words, _), p in zip(inner[name], parts, strict=True)]
    return tuple(made)


def shown(criteria: Sequence[Criterion]) -> str:
    """The criteria as judges read them: numbered, without weights (which are no judge's business)."""
    return "\n".join(f"{i}. ({c.dimension}) {c.text}" for i, c in enumerate(criteria, 1))


def read_scores(text: str, count: int) -> dict[Side, tuple[float, ...]]:
    """Each report's scores, criterion by criterion.

    Raises
    ------
    ChannelError
        If a criterion has no score, two, or one that is not from 0 to 10.
    """
    found = json_object(text)
    listed = found.get("scores") if found is not None else None
    if not isinstance(listed, list):
        raise ChannelError("the judgement can't be read: no JSON object with scores in the judge's reply")
    scores: dict[int, tuple[float, float]] = {}
    for entry in listed:
        at = entry.get("criterion") if isinstance(entry, Mapping) else None
        if isinstance(at, bool) or not isinstance(at, int) or not 1 <= at <= count:
            raise ChannelError(f"the judgement can't be read: there is no criterion {at!r}")
        if at in scores:
            raise ChannelError(f"the judgement can't be read: criterion {at} is scored twice")
        scores[at] = _score(entry.get("A"), at), _score(entry.get("B"), at)
    if missing := [i for i in range(1, count + 1) if i not in scores]:
        raise ChannelError(f"the judgement can't be read: criterion {missing[0]} has no score")
    ordered = [scores[i] for i in range(1, count + 1)]
    return {"A": tuple(a for a, _ in ordered), "B": tuple(b for _, b in ordered)}


def weighted(criteria: Sequence[Criterion], scores: Sequence[float]) -> float:
    """S of one report, from 0 to 10."""
    return math.fsum(c.weight * s for c, s in zip(criteria, scores, strict=True))


def overall(target: float, reference: float) -> float:
    """S_target / (S_target + S_reference); parity if both are 0.

    >>> overall(6.0, 6.0), overall(3.0, 1.0)
    (0.5, 0.75)
    """
    return target / (target + reference) if target + reference > 0 else 0.5


@dataclass(frozen=True)
class Verdict:
    """Decides without a model call: the overall score of the target, mean of both orders, as JSON.

    It reads the criteria from the agent ``criteria``, and the judges ``target_first`` and
    ``reference_first``. One that failed, or can't be read, fails the episode: that is no verdict.
    """

    own_criteria: bool = True

    async def __call__(self, turn: Turn) -> str:
        said = {delivery.edge.sender: delivery for delivery in turn.inbox}
        criteria = read_criteria(_said(said, CRITERIA).text) if self.own_criteria else GENERIC
        orders: dict[str, float] = {}
        targets: list[float] = []
        references: list[float] = []
        sides: tuple[tuple[str, Side], ...] = ((FIRST, "A"), (SECOND, "B"))
        for judge, side in sides:
            scores = read_scores(_said(said, judge).text, len(criteria))
            target = weighted(criteria, scores[side])
            reference = weighted(criteria, scores["B" if side == "A" else "A"])
            orders[judge] = overall(target, reference)
            targets.append(target)
            references.append(reference)
        return json.dumps(
            {
                "overall": sum(orders.values()) / len(orders),
                **orders,
                "target": sum(targets) / len(targets),
                "reference": sum(references) / len(references),
            }
        )


@dataclass(frozen=True)
class Numbered:
    """Says the criteria as judges read them."""

    own_criteria: bool = True

    async def __call__(self, turn: Turn) -> str:
        if not self.own_criteria:
            return shown(GENERIC)
        if not turn.inbox:
            raise ChannelError("there are no criteria: the judge that makes them failed")
        return shown(read_criteria(turn.inbox[-1].text))


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _said(said: Mapping[str, Delivery], sender: str) -> Delivery:
    if sender not in said:
        raise ChannelError(f"no verdict: {sender} gave none")
    return said[sender]


def _weight(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ChannelError(f"the criteria can't be read: a weight of {where} is {value!r}, not a number")
    return float(value)


def _shares(weights: Any, where: str) -> list[float]:
    listed = list(weights)
    total = math.fsum(listed)
    if total <= 0:
        raise ChannelError(f"the criteria can't be read: the weights of {where} sum to 0")
    return [weight / total for weight in listed]


def _score(value: Any, at: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= BEST:
        raise ChannelError(
            f"the judgement can't be read: a score of criterion {at} is {value!r}, not 0 to 10"
        )
    return float(value)
