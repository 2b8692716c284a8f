"""Best of n: n dialogues about an item, of which the best is taken, at every use.

Nobody knows the right answer where this is used, so R_task is the share of the dialogues that came to
a dialogue's own answer: highest in the largest group (``dialogue.md`` section 7). Answers are the same
when their texts are, or when their words overlap with F1 above 0.9. Tokens are normalised by the
longest of the n, as in every choice among dialogues of one item.

The price is paid for every item for ever, so nothing is ever paid back: the result says what is gained
for how many times the tokens.

Deliberately absent: how dialogues are played (:mod:`agentcomm.dialogue.play`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from agentcomm.dialogue.formats import POOL, Format
from agentcomm.dialogue.play import Sampled
from agentcomm.dialogue.reward import RewardConfig, RewardTerms, rewards
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.scorers import token_f1
from agentcomm.evaluation.stats import PairedDifference, paired_bootstrap

SAME_F1 = 0.9
"""Free texts whose words overlap more are the same answer."""


class Sampler(Protocol):
    """Where several dialogues about one item are played."""

    async def sample(
        self, format: Format, items: Sequence[int], samples: int, purpose: str = "accept"
    ) -> list[list[Sampled | None]]: ...


def shares(answers: Sequence[str | None]) -> list[float]:
    """For each answer the share of all that are the same; 0 for none.

    >>> shares(["Oslo", "Rome", "Oslo", None])
    [0.5, 0.25, 0.5, 0.0]
    """

    def same(a: str, b: str) -> bool:
        return a == b or token_f1(a, [b]) > SAME_F1

    return [
        0.0 if a is None else sum(b is not None and same(a, b) for b in answers) / len(answers)
        for a in answers
    ]


def choose(group: Sequence[Sampled], config: RewardConfig | None = None) -> int:
    """The dialogue to take, without knowing the right answer; ties go to fewer tokens, then to the first.

    Raises
    ------
    ConfigError
        For an empty group.
    """
    if not group:
        raise ConfigError("no dialogue to choose from")
    if len(group) == 1:
        return 0
    agreed = shares([s.answer for s in group])
    terms = rewards([replace(s.dialogue, task=a) for s, a in zip(group, agreed, strict=True)], config)
    return _best(terms)


def _best(terms: Sequence[RewardTerms]) -> int:
    def order(i: int) -> tuple[float, int, int]:
        # An unknown reward comes last.
        total = terms[i].total if math.isfinite(terms[i].total) else -math.inf
        return -total, terms[i].tokens, i

    return min(range(len(terms)), key=order)


@dataclass(frozen=True)
class BestResult:
    """What taking the best of n brought.

    ``one``, ``chosen`` and ``oracle`` are mean scores of the first dialogue, of the one that was chosen
    without labels, and of the one that labels would choose. ``difference`` is chosen minus one.
    ``tokens_one`` and ``tokens_all`` are ``total`` tokens an item, ``None`` where some are unknown.
    ``failed`` counts dialogues; items where all failed are left out.
    """

    n: int
    items: int
    failed: int
    one: float
    chosen: float
    oracle: float
    difference: PairedDifference
    tokens_one: float | None
    tokens_all: float | None
    dialogues: int
    spent: int | None

    @property
    def times(self) -> float | None:
        """How many times the tokens of one dialogue an item takes."""
        if not self.tokens_one or self.tokens_all is None:
            return None
        return self.tokens_all / self.tokens_one

    @property
    def adopted(self) -> bool:
        """Whether the score is surely higher."""
        return self.difference.low is not None and self.difference.low > 0

    @property
    def verdict(self) -> str:
        """One sentence."""
        price = "" if self.times is None else f", at {self.times:.1f} times the tokens, at every use"
        if self.adopted:
            return f"take the best of {self.n}: its score is surely higher{price}"
        return f"keep one dialogue: the best of {self.n} is not surely better{price}"

    def to_dict(self) -> dict[str, Any]:
        # It costs at every use: there is nothing that could be paid back.
        return {
            **asdict(self),
            "times": self.times,
            "adopted": self.adopted,
            "verdict": self.verdict,
            "break_even_items": None,
        }


@dataclass
class BestOfN:
    """Plays n dialogues for each held-out item and compares the best with the first.

    Parameters
    ----------
    n:
        Dialogues for each item, at least 2; sampled with a temperature above 0.
    items:
        ``validate`` items.
    """

    n: int = 4
    items: int = 32
    format: Format = POOL["natural"]
    config: RewardConfig = field(default_factory=RewardConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2 or self.items < 1:
            raise ConfigError(f"best of {self.n} on {self.items} items; at least 2 dialogues and 1 item")

    @property
    def most(self) -> int:
        """Dialogues that are played."""
        return self.n * self.items

    async def run(self, sampler: Sampler) -> BestResult:
        """Play and compare.

        Raises
        ------
        TaskError
            If every dialogue failed.
        """
        groups = await sampler.sample(self.format, range(self.items), self.n)
        there = [[s for s in group if s is not None] for group in groups]
        pairs = [(group, found) for group, found in zip(groups, there, strict=True) if found]
        if not pairs:
            raise TaskError("every dialogue failed; see the ledger for why")
        # Where the first sample failed, the first that did not stands for one dialogue.
        one = [found[0].dialogue.task for _, found in pairs]
        chosen = [found[choose(found, self.config)].dialogue.task for _, found in pairs]
        oracle = [max(s.dialogue.task for s in found) for _, found in pairs]
        everything = [s.dialogue.tokens.get("total") for _, found in pairs for s in found]
        firsts = [found[0].dialogue.tokens.get("total") for _, found in pairs]
        known = [t for t in everything if t is not None]
        first = [t for t in firsts if t is not None]
        whole = len(known) == len(everything)
        return BestResult(
            n=self.n,
            items=len(pairs),
            failed=sum(s is None for group in groups for s in group),
            one=float(np.mean(one)),
            chosen=float(np.mean(chosen)),
            oracle=float(np.mean(oracle)),
            difference=paired_bootstrap(chosen, one, rng=np.random.default_rng([self.seed, 11])),
            tokens_one=float(np.mean(first)) if len(first) == len(firsts) else None,
            tokens_all=sum(known) / len(pairs) if whole else None,
            dialogues=self.most,
            spent=sum(known) if whole else None,
        )
