"""Confirm: whether what was learned loses nothing that matters, on items that nobody learned from.

A learner's own claim is made of the rollouts that it chose by, so it flatters the choice; and most of
it may be saved tokens, which a price turns into score. So some ``validate`` items are run under the
whole team and under the policy, in pairs, and the policy is *adopted*

* if it is shown not to lose more than a margin (the lower bound is above it), or
* if it isn't shown, but the mean loss is within the margin and a loss isn't sure either (the upper
  bound is not below 0).

Otherwise the whole team stays. Few items can't show much, whatever is decided: at 50 items and one
item in four on which the two differ, a policy that loses 15 points is adopted once in thirty times,
one that loses 10 once in six, and one that loses nothing is refused once in three. The verdict
therefore stands beside the decision: shown, refuted, or not to be said from so few.

:class:`Evidence` says what the claim was made of: how often the chosen teams were themselves tried,
and how much of what they seem to be worth is score and how much is saved tokens.

Deliberately absent: any learner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentcomm.errors import ConfigError, RunError, TaskError
from agentcomm.evaluation.splits import hash_of, split_of
from agentcomm.evaluation.stats import NonInferiority, PairedDifference, non_inferiority, paired_bootstrap
from agentcomm.graph import Topology
from agentcomm.pruning.batches import mean_known
from agentcomm.pruning.environment import Environment, Metered, Outcome, Trial, run_trials
from agentcomm.pruning.policy import Policy, StaticPolicy
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.task import Item

CONFIRM = 50
"""``validate`` items that a policy is confirmed on, where nobody says how many."""

MARGIN = 0.02
"""The loss of score that doesn't matter, where nobody says another."""

LEVEL = 0.95

_ROUNDING = 1e-9


# ------------------------------------------------------------------------------ confirmation


@dataclass(frozen=True)
class Confirmation:
    """The whole team and the policy on the same ``validate`` items.

    Parameters
    ----------
    asked:
        How many items were to be run; ``same`` of them get the whole team from the policy as well.
    failed, failure:
        Pairs left out since one of the two failed, and what failed first. They are no wrong answers.
    score_before, score_after, tokens_before, tokens_after:
        Means of the whole team and of the policy over the other pairs; ``None`` where nothing was run
        or tokens aren't told.
    difference:
        Of scores, policy - whole team, two-sided.
    verdict:
        Whether the policy is not worse by the margin.
    rollouts, tokens:
        Rollouts made, and tokens paid for them (``None``: nobody knows).
    wanted:
        How many items were asked for, where it was done on fewer.
    """

    asked: int
    same: int
    failed: int
    failure: str
    score_before: float | None
    score_after: float | None
    tokens_before: float | None
    tokens_after: float | None
    difference: PairedDifference
    verdict: NonInferiority
    rollouts: int
    tokens: int | None = None
    wanted: int | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether the policy prunes nothing on any of the items, so that nothing was run."""
        return self.same == self.asked

    @property
    def lost(self) -> bool:
        """Whether the mean loss is above the margin."""
        mean = self.difference.mean
        return mean is not None and mean < -self.verdict.margin - _ROUNDING

    @property
    def adopted(self) -> bool:
        """Whether the policy is used rather than the whole team."""
        return self.verdict.verdict == "yes" or not (self.lost or self.verdict.upper < 0)

    def sentences(self) -> list[str]:
        """What was found and decided, the decision first."""
        if self.keeps_all:
            return [
                f"confirmed: what was learned keeps the whole team on all {_items(self.asked)}, so there was nothing "
                f"to run"
            ]
        d, v = self.difference, self.verdict
        allowed = f"{100 * v.margin:g} points"
        spread = "" if d.low is None or d.high is None else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        found = (
            f"on {_items(d.items)} what was learned scores {self.score_after:.2f} and the whole team "
            f"{self.score_before:.2f}, {100 * (d.mean or 0.0):+.1f} points{spread}"
        )
        if v.verdict == "yes":
            said = f"not worse by {allowed} ({v.level:.0%} confident)"
        elif v.verdict == "no":
            said = f"worse by more than {allowed} ({v.level:.0%} confident)"
        else:
            said = (
                f"whether it is worse by {allowed} can't be said from {_count(d.items, 'item')} (about {v.needed:,} "
                f"would be needed)"
            )
        if not self.adopted:
            why = f"more than the {allowed} that may be lost" if self.lost else "surely a loss"
            lines = [f"not adopted, the whole team is kept: {found}, {why}; {said}"]
        elif v.verdict == "yes":
            lines = [f"confirmed: {found}; {said}"]
        else:
            lines = [f"adopted, but nothing is shown: {found}; {said}"]
        more = []
        if self.tokens_before and self.tokens_after is not None:
            change = (self.tokens_after - self.tokens_before) / self.tokens_before
            more.append(
                f"there an item takes {self.tokens_before:,.0f} tokens with the whole team and "
                f"{self.tokens_after:,.0f} with what was learned ({change:+.0%})"
            )
        paid = "unknown tokens" if self.tokens is None else f"{self.tokens:,} tokens"
        more.append(f"to find that out took {_count(self.rollouts, 'rollout')} and {paid}")
        lines.append("; ".join(more))
        if self.wanted is not None:
            lines.append(
                f"{_items(self.wanted)} were asked for, {self.asked:,} are there and within the budget"
            )
        if self.failed:
            lines.append(
                f"{_count(self.failed, 'pair')} with a failure left out ({self.failure}); the same call tries "
                f"them again"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "adopted": self.adopted,
            "items": self.asked,
            **{
                name: getattr(self, name)
                for name in (
                    "same",
                    "failed",
                    "score_before",
                    "score_after",
                    "tokens_before",
                    "tokens_after",
                    "rollouts",
                    "tokens",
                )
            },
            "difference": dataclasses.asdict(self.difference),
            "non_inferiority": dataclasses.asdict(self.verdict),
        }


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # never -0.00


def _items(n: int) -> str:
    return _count(n, "validate item")


def check(confirm: int, margin: float) -> None:
    """Refuse numbers that can't be meant, before anything is paid.

    Raises
    ------
    ConfigError
        If there are to be fewer than 0 items, or the margin isn't between 0 and 1.
    """
    if confirm < 0:
        raise ConfigError(f"confirm={confirm}; give a number of validate items, 0 for none")
    if not 0 < margin < 1:
        raise ConfigError(f"margin={margin}; it must lie between 0 and 1, 0.02 for two points of score")


def held_out(
    items: Iterable[Item], learned_from: Iterable[str], count: int | None = None
) -> tuple[Item, ...]:
    """The first ``count`` items, each once, that nobody learned from.

    Raises
    ------
    TaskError
        For an item that is no ``validate`` item: others are for learning, or for scoring.
    """
    seen = set(learned_from)
    found: dict[str, Item] = {}
    for item in items:
        if (split := split_of(item)) != "validate":
            raise TaskError(
                f"item {item.id!r} belongs to split {split!r}; a policy is confirmed on split 'validate' only"
            )
        if (content := hash_of(item)) not in seen:
            found.setdefault(content, item)
    return tuple(found.values())[:count]


async def confirm(
    environment: Environment, policy: Policy, whole: Topology, items: Sequence[Item], margin: float = MARGIN
) -> Confirmation:
    """Run the whole team and the policy's on ``items``, the same seed for both.

    Parameters
    ----------
    environment:
        Where; it keeps what was run, so that what was cut off goes on.
    whole:
        The whole team.
    items:
        Of :func:`held_out`.

    Raises
    ------
    TaskError
        As :func:`held_out`, and for an item that the policy has learned from.
    RunError
        If no pair of rollouts succeeded, so that nothing can be said.
    """
    check(len(items), margin)
    if len(held_out(items, policy.card.learned_from)) < len(items):
        raise TaskError("items that the policy has learned from, or one twice, can't confirm it")
    pool = environment.pool
    chosen = [policy(item) for item in items]
    all_of_it = _executed(pool, whole)
    same = sum(_executed(pool, topology) == all_of_it for topology in chosen)
    if same == len(items):
        n, equal = len(items), NonInferiority("yes", 0.0, 0.0, 0.0, LEVEL, margin, len(items), 0)
        nothing = PairedDifference(0.0, 0.0, 0.0, LEVEL, n)
        return Confirmation(n, n, 0, "", None, None, None, None, nothing, equal, 0, 0)
    trials: list[Trial] = []
    places: list[tuple[int, int]] = []
    for item, topology in zip(items, chosen, strict=True):
        first = len(trials)
        trials.append(Trial(item, whole, 0))
        if _executed(pool, topology) != all_of_it:
            trials.append(Trial(item, topology, 0))
        places.append((first, len(trials) - 1))
    outcomes = await run_trials(environment, trials)
    pairs: list[tuple[Outcome, Outcome]] = []
    failures: list[str] = []
    for a, b in places:
        pair = outcomes[a], outcomes[b]
        if all(o.status == "ok" and o.correct is not None for o in pair):
            pairs.append(pair)
        else:
            failures.append(next((o.failure for o in pair if o.failure), "no score"))
    if not pairs:
        raise RunError(
            f"nothing can be confirmed: on each of {_items(len(items))} a rollout failed ({failures[0]}); see to that, "
            f"then the same call goes on, or confirm on 0 items"
        )
    before = [float(a.correct or 0.0) for a, _ in pairs]
    after = [float(b.correct or 0.0) for _, b in pairs]
    rng = np.random.default_rng(0)  # equal outcomes are to give an equal decision
    return Confirmation(
        asked=len(items),
        same=same,
        failed=len(failures),
        failure=failures[0] if failures else "",
        score_before=float(np.mean(before)),
        score_after=float(np.mean(after)),
        tokens_before=mean_known([a.total_tokens for a, _ in pairs]),
        tokens_after=mean_known([b.total_tokens for _, b in pairs]),
        difference=paired_bootstrap(after, before, rng=rng, level=LEVEL),
        verdict=non_inferiority(after, before, rng=rng, margin=margin, level=LEVEL),
        rollouts=len(trials),
    )


def kept_whole(policy: Policy, whole: Topology) -> StaticPolicy:
    """What is used where ``policy`` isn't adopted: the whole team, under the card of what was learned."""
    return StaticPolicy(policy.pool, policy.card, EdgeProbabilities.of_topology(policy.pool, whole))


def _executed(pool: Pool, topology: Topology) -> bytes:
    """Equal for topologies that run alike, whether they say it once or for each round."""
    arrays = pool.arrays(topology)
    rounds = max(1, pool.rounds)
    shapes = [(rounds, *a.shape[a.ndim - d :]) for a, d in zip(arrays, (1, 2, 2), strict=True)]
    return b"".join(np.broadcast_to(a, s).tobytes() for a, s in zip(arrays, shapes, strict=True))


# ---------------------------------------------------------------------------------- evidence


@dataclass
class Watched(Metered):
    """A metered environment that remembers what was tried."""

    tried: list[tuple[Item, Topology, Outcome]] = field(default_factory=list)

    async def rollout(self, item: Item, topology: Topology, seed: int, **drawn: Any) -> Outcome:
        """As :meth:`Metered.rollout`."""
        outcome = await super().rollout(item, topology, seed, **drawn)
        self.tried.append((item, topology, dataclasses.replace(outcome, ledger=None)))
        return outcome


@dataclass(frozen=True)
class Tries:
    """How often teams were tried without failing, their mean score, and whether all scores were 0 or 1."""

    count: int
    score: float | None
    binary: bool

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Tries:
        scores = [o.correct for o in outcomes if o.status == "ok" and o.correct is not None]
        return cls(
            len(scores), float(np.mean(scores)) if scores else None, all(s in (0.0, 1.0) for s in scores)
        )

    def __str__(self) -> str:
        if self.score is None:
            return "never"
        times = "once" if self.count == 1 else f"{self.count:,} times"
        right = f"{round(self.score * self.count):,} right" if self.binary else f"score {self.score:.2f}"
        return f"{times}, {right}"


@dataclass(frozen=True)
class Evidence:
    """What a policy was chosen by.

    Parameters
    ----------
    chosen, whole:
        Trials, before the choice, of the team that the policy now gives to the item it was tried on,
        and of the whole team.
    score, tokens:
        What the policy is worth more than the whole team on ``items`` learn items (measured after the
        choice), in points of score and in saved tokens at their price. ``None`` is unknown.
    price:
        Of the tokens of one whole team.
    claim, claim_sd:
        What the method itself says that it gains, where it says so.
    """

    chosen: Tries
    whole: Tries
    price: float | None = None
    items: int = 0
    score: float | None = None
    tokens: float | None = None
    claim: float | None = None
    claim_sd: float | None = None

    def sentences(self) -> list[str]:
        """The same in words."""
        itself = (
            f"had itself been tried {self.chosen}" if self.chosen.count else "had itself never been tried"
        )
        lines = [f"what was chosen {itself}; the whole team was tried {self.whole}"]
        if self.tokens is None or self.price is None:
            return lines
        saved = f"{_signed(self.tokens)} are saved tokens at a price of {self.price:g}"
        if self.claim is not None:
            sd = "" if self.claim_sd is None else f" +- {self.claim_sd:.2f}"
            lines.append(
                f"the method expects a gain of {_signed(self.claim)}{sd}: {saved}, {_signed(self.claim - self.tokens)} is "
                f"score"
            )
        elif self.score is not None:
            lines.append(
                f"a gain of {_signed(self.score + self.tokens)} on {_count(self.items, 'learn item')}: {saved}, "
                f"{_signed(self.score)} is score"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


def evidence(
    policy: Policy, whole: Topology, tried: Iterable[tuple[Item, Topology, Outcome]]
) -> Evidence | None:
    """What was tried before ``policy`` was chosen; ``None`` where it prunes nothing on any of these items."""
    pool = policy.pool
    all_of_it = _executed(pool, whole)
    decided: dict[str, bytes] = {}
    known: dict[Topology, bytes] = {}
    chosen: list[Outcome] = []
    complete: list[Outcome] = []
    for item, topology, outcome in tried:
        if (content := hash_of(item)) not in decided:
            decided[content] = _executed(pool, policy(item))
        if topology not in known:
            known[topology] = _executed(pool, topology)
        if known[topology] == all_of_it:
            complete.append(outcome)
        elif known[topology] == decided[content]:
            chosen.append(outcome)
    if all(team == all_of_it for team in decided.values()):
        return None
    return Evidence(Tries.of(chosen), Tries.of(complete))


def claim_of(policy: Policy, items: Sequence[Item]) -> tuple[float | None, float | None]:
    """The gain that a method claims over ``items`` and its standard deviation, where its card says so.

    A card that does has them in its trace as ``gain`` and ``gain_sd``, one number for each kind of
    question, and its policy tells kinds apart (:class:`~agentcomm.pruning.frugal.FrugalPolicy`).
    """
    gains, sds = (policy.card.trace.get(name) for name in ("gain", "gain_sd"))
    kind_of = getattr(policy, "kind_of", None)
    if kind_of is None or not isinstance(gains, list) or not isinstance(sds, list):
        return None, None
    kinds = [kind_of(item) for item in items]
    return float(np.mean([gains[k] for k in kinds])), float(np.mean([sds[k] for k in kinds]))
