"""Best of n: the largest group of answers wins, and the price at every use is told."""

from collections.abc import Sequence

import numpy as np
import pytest

from agentcomm.dialogue.best import BestOfN, choose, shares
from agentcomm.dialogue.formats import Format
from agentcomm.dialogue.play import Sampled
from agentcomm.dialogue.reward import Dialogue, RewardConfig, Utterance
from agentcomm.errors import ConfigError, TaskError

CONFIG = RewardConfig(loss_weight=0.0, min_tokens=1)
pytestmark = pytest.mark.anyio


def sampled(answer: str | None, task: float, tokens: int = 50) -> Sampled:
    return Sampled(
        Dialogue(task, (Utterance("a", "m"),), {"message": tokens, "total": 3 * tokens}),
        answer,
    )


def test_answers_are_grouped_by_text_and_by_words() -> None:
    assert shares(
        ["the red old oak tree at the mill by a river", "red old oak tree at mill by the river", "x"]
    ) == [
        2 / 3,
        2 / 3,
        1 / 3,
    ]
    assert shares(["a b c d", "a b c e"]) == [0.5, 0.5]
    assert shares([None, None]) == [0.0, 0.0]


def test_the_largest_group_wins_and_within_it_the_shortest() -> None:
    group = [
        sampled("rome", 0.0, 10),
        sampled("oslo", 1.0, 50),
        sampled("oslo", 1.0, 40),
        sampled("oslo", 1.0, 60),
        sampled(None, 0.0, 10),
    ]
    # R = share - 0.6 tokens / 60: 0.1, 0.1, 0.2, 0.0, -0.1
    assert choose(group, CONFIG) == 2
    assert choose([sampled(None, 0.0)], CONFIG) == 0
    with pytest.raises(ConfigError, match="no dialogue"):
        choose([], CONFIG)


def test_the_choice_never_sees_the_right_answer() -> None:
    right = [sampled("x", 1.0), sampled("y", 0.0), sampled("y", 0.0)]
    wrong = [
        s._replace(dialogue=Dialogue(1 - s.dialogue.task, s.dialogue.messages, s.dialogue.tokens))
        for s in right
    ]
    assert choose(right, CONFIG) == choose(wrong, CONFIG) == 1


class Noisy:
    """Right with a chance, else one of many wrong answers; some samples fail."""

    def __init__(self, chance: float, failing: Sequence[tuple[int, int]] = ()) -> None:
        self.chance, self.failing, self.asked = chance, failing, 0

    async def sample(
        self, format: Format, items: Sequence[int], samples: int, purpose: str = "accept"
    ) -> list[list[Sampled | None]]:
        self.asked += len(items) * samples
        made: list[list[Sampled | None]] = []
        for i in items:
            group: list[Sampled | None] = []
            for s in range(samples):
                rng = np.random.default_rng([3, i, s])
                right = rng.random() < self.chance
                answer = "right" if right else f"wrong{rng.integers(99)}"
                group.append(None if (i, s) in self.failing else sampled(answer, float(right)))
            made.append(group)
        return made


async def test_agreement_helps_a_model_that_is_right_more_often_than_wrong_the_same_way() -> None:
    sampler = Noisy(0.5)
    found = await BestOfN(8, 64, config=CONFIG).run(sampler)
    assert found.adopted and found.chosen > found.one + 0.2 and found.oracle >= found.chosen
    assert found.dialogues == sampler.asked == 512 and found.spent == 512 * 150
    assert (found.tokens_one, found.tokens_all, found.times) == (150, 1200, 8)
    assert (
        found.verdict
        == "take the best of 8: its score is surely higher, at 8.0 times the tokens, at every use"
    )
    assert found.to_dict()["break_even_items"] is None  # what costs at every use is never paid back


async def test_where_nothing_is_gained_one_dialogue_is_kept() -> None:
    for chance in (0.0, 1.0):
        found = await BestOfN(4, 16, config=CONFIG).run(Noisy(chance))
        assert not found.adopted and found.verdict.startswith("keep one dialogue")


async def test_a_sample_that_fails_leaves_its_group_and_is_no_wrong_answer() -> None:
    failing = [(0, 0), (0, 1), *((1, s) for s in range(4))]
    found = await BestOfN(4, 8, config=CONFIG).run(Noisy(1.0, failing))
    assert (found.items, found.failed, found.one, found.chosen) == (7, 6, 1.0, 1.0)
    with pytest.raises(TaskError, match="every dialogue failed"):
        await BestOfN(2, 1, config=CONFIG).run(Noisy(1.0, [(0, 0), (0, 1)]))


def test_one_dialogue_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        BestOfN(1)
