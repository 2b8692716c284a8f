"""Which dialogues are learned from: best of each item, thresholds, shares, ties, and random as control."""

import numpy as np
import pytest

from agentcomm.dialogue.reward import Dialogue, RewardConfig, RewardTerms, Utterance, reward
from agentcomm.dialogue.select import best_of, select
from agentcomm.errors import ConfigError

PLAIN = RewardConfig(token_weight=0, task_floor=0, guards=frozenset(), loss_floor=0)


def worth(total: float, tokens: int = 10, task: float = 0.0) -> RewardTerms:
    """A reward of ``total``, made of its loss term."""
    return reward(
        Dialogue(task, (Utterance("a", "x", 1 / (total - task)),), {"message": tokens}), 100.0, PLAIN
    )


def groups(*best: float) -> list[list[RewardTerms]]:
    return [[worth(0.01), worth(r)] for r in best]


def test_the_best_sample_goes_on_and_ties_go_to_fewer_tokens_then_the_earlier() -> None:
    assert best_of([worth(0.5), worth(0.9), worth(0.7)]) == 1
    assert best_of([worth(0.9, 20), worth(0.9, 10), worth(0.9, 10)]) == 1
    assert best_of([]) is None
    never = reward(Dialogue(0.0, (Utterance("a", "x", 0.2),), {"message": 10}), 100.0)
    assert not never.selectable and best_of([never]) is None


def test_the_papers_order_takes_the_share_of_what_passed_and_the_codes_of_all() -> None:
    ten = groups(*(0.1 * k for k in range(1, 11)))
    paper, funnel = select(ten, threshold=0.5)
    assert (funnel.items, funnel.selectable, funnel.passed, funnel.kept) == (10, 10, 5, 3)
    assert [c.item for c in paper] == [9, 8, 7]
    code, _ = select(ten, threshold=0.5, order="code")
    assert [c.item for c in code] == [9, 8, 7, 6, 5]  # the top seven first, then the threshold
    band, _ = select(ten, threshold=0.0, order="code", drop_best=10)
    assert [c.item for c in band] == [8, 7, 6, 5, 4, 3, 2]


def test_the_threshold_is_strict_and_at_least_one_is_kept_of_what_passed() -> None:
    assert select(groups(0.5), threshold=0.5)[0] == []
    assert len(select(groups(0.6), threshold=0.5, share=1)[0]) == 1
    assert select([], threshold=0.5)[1].kept == 0


def test_random_draws_as_many_from_what_passed_and_repeats_with_its_seed() -> None:
    ten = groups(*(0.1 * k for k in range(1, 11)))
    drawn = [select(ten, selector="random", rng=np.random.default_rng(s))[0] for s in range(30)]
    assert all(len(d) == 3 and all(c.item >= 5 for c in d) for d in drawn)
    assert len({tuple(c.item for c in d) for d in drawn}) > 3
    assert drawn[4] == select(ten, selector="random", rng=np.random.default_rng(4))[0]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="percentages"):
        select([], share=0)
    with pytest.raises(ConfigError, match="orders: paper, code"):
        select([], order="mine")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs rng"):
        select([], selector="random")
