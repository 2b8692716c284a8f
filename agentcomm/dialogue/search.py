"""Search: which message format works, found without training (``dialogue.md`` section 7).

Successive halving. All formats of a rung play the same items, each rung fresh ones; the best half
goes on, then the best quarter. Natural language is in every rung and in the final comparison, on
items that nothing was chosen on. It is replaced only where the winner's reward is surely higher and
its score not lower: "keep natural language" is a result.

Rewards are normalised by a constant that is calibrated first, with natural language; never by the
longest of a group, which would depend on which formats were drawn.

Deliberately absent: how a dialogue is played (:mod:`agentcomm.dialogue.play`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeGuard

import anyio
import numpy as np

from agentcomm.dialogue.formats import BANDIT, NATURAL, Format, pool
from agentcomm.dialogue.reward import Dialogue, RewardConfig, count, quantile, reward
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.stats import PairedDifference, paired_bootstrap
from agentcomm.executors.base import first_error


class Arena(Protocol):
    """Where dialogues are played."""

    async def play(self, format: Format, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
        """One dialogue for each place in the list of items, in their order; ``None`` where a call failed.

        ``items`` are places in the ``learn`` items, or in the ``validate`` items for the purpose
        ``"accept"``. Asked for several formats at once; how many go beside each other is the arena's choice.
        """
        ...


@dataclass(frozen=True)
class SearchPlan:
    """How many dialogues a search plays.

    Parameters
    ----------
    calibrate:
        Items for the normaliser.
    rungs:
        Items of each rung; formats are halved, then quartered, ... between them.
    accept:
        ``validate`` items of the final comparison.
    quantile:
        Of natural language's tokens: the normaliser.
    tolerance:
        The loss of score that doesn't matter.
    """

    calibrate: int = 30
    rungs: tuple[int, ...] = (8, 16, 32)
    accept: int = 32
    quantile: float = 0.85
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        if self.calibrate < 1 or self.accept < 1 or not self.rungs or min(self.rungs) < 1:
            raise ConfigError(f"a search needs items in every step, not {self}")

    @property
    def learn_items(self) -> int:
        return self.calibrate + sum(self.rungs)

    def most(self, formats: int) -> int:
        """Dialogues at most: calibration, rungs with natural language appended, final comparison.

        >>> SearchPlan().most(12)
        430
        """
        arms = [formats if r == 0 else math.ceil(formats / 2**r) + 1 for r in range(len(self.rungs))]
        played = sum(min(a, formats) * n for a, n in zip(arms, self.rungs, strict=True))
        return self.calibrate + played + 2 * self.accept


@dataclass(frozen=True)
class Standing:
    """How a format did in a rung; means over the items on which nothing failed."""

    format: str
    rung: int
    items: int
    failed: int
    reward: float | None
    task: float | None
    tokens: float | None
    total_tokens: float | None
    nll: float | None
    kept: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Parameters
    ----------
    adopted:
        The format to use; ``natural`` where nothing was surely better.
    winner:
        The best other format of the last rung, which was compared with natural language.
    standings:
        Every rung, best first, and the final comparison as the rung after the last.
    reward, task:
        Winner minus natural language on the ``validate`` items.
    dialogues:
        Played, failed ones included.
    spent:
        ``total`` tokens of all dialogues, ``None`` where some are unknown.
    saved_per_item:
        Natural language's ``total`` tokens an item minus the winner's, on ``validate``.
    """

    adopted: str
    winner: str
    normaliser: float
    standings: tuple[Standing, ...]
    reward: PairedDifference
    task: PairedDifference
    dialogues: int
    spent: int | None
    saved_per_item: float | None

    @property
    def break_even(self) -> float | None:
        """Items after which the search is paid back; ``None``: never, or unknown."""
        if self.spent is None or self.saved_per_item is None or self.adopted == NATURAL:
            return None
        return break_even(self.spent, self.saved_per_item)

    @property
    def front(self) -> tuple[str, ...]:
        """Formats of the first round that no other one beats in both score and tokens, shortest first."""
        rows = [s for s in self.standings if s.rung == 1 and s.task is not None and s.tokens is not None]

        def beaten(a: Standing) -> bool:
            return any(
                (b.task or 0.0) >= (a.task or 0.0)
                and (b.tokens or 0.0) <= (a.tokens or 0.0)
                and (b.task, b.tokens) != (a.task, a.tokens)
                for b in rows
            )

        return tuple(s.format for s in sorted(rows, key=lambda s: s.tokens or 0.0) if not beaten(s))

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.adopted == NATURAL:
            return f"keep natural language: {self.winner} is not surely better"
        return f"use {self.adopted}: its reward is higher and its score not lower"

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "break_even_items": self.break_even,
            "front": list(self.front),
            "verdict": self.verdict,
        }


def break_even(spent: float, saved_per_item: float) -> float | None:
    """Items after which ``spent`` tokens are paid back; ``None`` where nothing is saved.

    >>> break_even(1_200_000, 640 - 400)
    5000.0
    """
    return spent / saved_per_item if saved_per_item > 0 else None


def net_saving(items: int, before: float, after: float, spent: float) -> float:
    """Tokens saved over ``items`` items, what learning took deducted.

    >>> net_saving(10_000, 640, 400, 1_200_000)
    1200000
    """
    return items * (before - after) - spent


@dataclass
class FormatSearch:
    """Successive halving over message formats.

    Parameters
    ----------
    formats:
        The pool by id; natural language is added where it is missing.
    plan, config:
        Sizes, and what is rewarded.
    seed:
        Of the bootstrap.
    """

    formats: Mapping[str, Format] = field(default_factory=lambda: pool(BANDIT))
    plan: SearchPlan = field(default_factory=SearchPlan)
    config: RewardConfig = field(default_factory=RewardConfig)
    seed: int = 0

    async def run(self, arena: Arena) -> SearchResult:
        """Search, and compare the winner with natural language.

        Raises
        ------
        ConfigError
            If there is only natural language.
        TaskError
            If every dialogue of a step failed.
        """
        formats = {NATURAL: pool([])[NATURAL], **self.formats}
        if len(formats) < 2:
            raise ConfigError("nothing to search among: give a format beside natural language")
        played: list[Dialogue | None] = []

        async def play_all(
            which: Sequence[str], items: Sequence[int], purpose: str
        ) -> list[list[Dialogue | None]]:
            """Beside each other, as far as the arena goes along: a server's batches are filled."""
            found: list[list[Dialogue | None]] = [[] for _ in which]

            async def one(place: int) -> None:
                found[place] = await arena.play(formats[which[place]], items, purpose)

            try:
                async with anyio.create_task_group() as group:
                    for place in range(len(which)):
                        group.start_soon(one, place)
            except BaseExceptionGroup as errors:
                raise first_error(errors) from None
            played.extend(d for talks in found for d in talks)
            return found

        async def play(format: str, items: Sequence[int], purpose: str) -> list[Dialogue | None]:
            return (await play_all([format], items, purpose))[0]

        plan, natural = self.plan, formats[NATURAL]
        calibrated = [d for d in await play(natural.id, range(plan.calibrate), "calibrate") if d is not None]
        if not calibrated:
            raise TaskError("every dialogue in natural language failed, so nothing can be calibrated")
        normaliser = quantile([count(d, self.config.count) for d in calibrated], plan.quantile)

        standings: list[Standing] = []
        arms, first = list(formats), plan.calibrate
        for rung, size in enumerate(plan.rungs):
            items = range(first, first + size)
            first += size
            talks = await play_all(arms, items, "search")
            rows = [self.standing(a, rung + 1, d, normaliser) for a, d in zip(arms, talks, strict=True)]
            rows.sort(key=lambda s: -math.inf if s.reward is None else s.reward, reverse=True)
            if rows[0].reward is None:
                raise TaskError(f"every dialogue of rung {rung + 1} failed; see the ledger for why")
            best_of = math.ceil(len(formats) / 2 ** (rung + 1)) if rung + 1 < len(plan.rungs) else 1
            arms = [s.format for s in rows[:best_of]]
            standings += [replace(s, kept=s.format in arms) for s in rows]
            if rung + 1 < len(plan.rungs):
                # Natural language plays every rung, and so does the best of the others: they meet in the end.
                best = next(s.format for s in rows if s.format != natural.id)
                arms += [f for f in (natural.id, best) if f not in arms]
        last = [s for s in standings if s.rung == len(plan.rungs)]
        winner = next(s.format for s in last if s.format != natural.id)
        return await self.final(winner, normaliser, standings, play, played)

    async def final(
        self,
        winner: str,
        normaliser: float,
        standings: Sequence[Standing],
        play: Callable[[str, Sequence[int], str], Awaitable[list[Dialogue | None]]],
        played: Sequence[Dialogue | None],
    ) -> SearchResult:
        """Compare ``winner`` with natural language on the held-out items, and adopt it or keep that.

        ``play`` takes a format's id and adds to ``played``, the dialogues that all this took.

        Raises
        ------
        TaskError
            If every dialogue of the comparison failed.
        """
        items = range(self.plan.accept)
        ours = await play(winner, items, "accept")
        theirs = await play(NATURAL, items, "accept")
        rung = 1 + max((s.rung for s in standings), default=0)
        both = [
            (x, y)
            for x, y in zip(ours, theirs, strict=True)
            if self._known(x, normaliser) and self._known(y, normaliser)
        ]
        if not both:
            raise TaskError("every dialogue of the final comparison failed; see the ledger for why")
        a = [reward(d, normaliser, self.config) for d, _ in both]
        b = [reward(d, normaliser, self.config) for _, d in both]
        rng = np.random.default_rng([self.seed, 7])
        better = paired_bootstrap([t.total for t in a], [t.total for t in b], rng=rng)
        right = paired_bootstrap([t.task for t in a], [t.task for t in b], rng=rng)
        adopt = _surely_above(better) and right.mean is not None and right.mean >= -self.plan.tolerance
        adopted = winner if adopt else NATURAL
        rows = [self.standing(f, rung, d, normaliser) for f, d in ((winner, ours), (NATURAL, theirs))]
        totals = [d.tokens.get("total") for d in played if d is not None]
        spent = sum(t for t in totals if t is not None)
        full = [(x.tokens.get("total"), y.tokens.get("total")) for x, y in both]
        saved = [y - x for x, y in full if x is not None and y is not None]
        return SearchResult(
            adopted=adopted,
            winner=winner,
            normaliser=normaliser,
            standings=(*standings, *(replace(s, kept=s.format == adopted) for s in rows)),
            reward=better,
            task=right,
            dialogues=len(played),
            spent=spent if None not in totals else None,
            saved_per_item=float(np.mean(saved)) if len(saved) == len(full) else None,
        )

    def standing(
        self, format: str, rung: int, dialogues: Sequence[Dialogue | None], normaliser: float
    ) -> Standing:
        """How a format did on these dialogues; one whose reward is not known counts as failed."""
        there = [d for d in dialogues if self._known(d, normaliser)]
        terms = [reward(d, normaliser, self.config) for d in there]
        totals = [d.tokens["total"] for d in there if "total" in d.tokens]
        return Standing(
            format=format,
            rung=rung,
            items=len(there),
            failed=len(dialogues) - len(there),
            reward=_mean([t.total for t in terms]),
            task=_mean([t.task for t in terms]),
            tokens=_mean([float(t.tokens) for t in terms]),
            total_tokens=_mean([float(t) for t in totals]) if len(totals) == len(there) else None,
            nll=_mean([t.nll for t in terms if t.nll is not None]),
            kept=False,
        )

    def _known(self, dialogue: Dialogue | None, normaliser: float) -> TypeGuard[Dialogue]:
        """Whether it has a reward: not where a call failed, or a message's likelihood could not be read."""
        return dialogue is not None and math.isfinite(reward(dialogue, normaliser, self.config).total)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _surely_above(difference: PairedDifference) -> bool:
    """Whether the lower bound is above 0; equal differences on every item have no other bound than themselves."""
    if difference.low is not None:
        return difference.low > 0
    return difference.mean is not None and difference.mean > 0
