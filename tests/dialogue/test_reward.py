"""A dialogue's reward: the specification's worked example, its guards at their bounds, its trends."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.dialogue.reward import (
    GUARDS,
    Dialogue,
    RewardConfig,
    Utterance,
    group_max,
    quantile,
    reward,
    rewards,
)
from agentcomm.errors import ConfigError


def spoken(task: float, tokens: int, nll: float | None, *texts: str, capped: bool = False) -> Dialogue:
    said = texts or ("where is it", "in the box")
    messages = tuple(Utterance(("alice", "bob")[i % 2], t, nll, capped) for i, t in enumerate(said))
    return Dialogue(task, messages, {"message": tokens})


NINE = {
    "a": spoken(1, 60, 1.6),
    "b": spoken(1, 150, 1.25),
    "c": spoken(0.5, 45, 2.5),
    "d": spoken(0, 75, 0.8),
    "e": spoken(1, 30, 2.0),
    "f": spoken(1, 90, 0.1),
    "g": spoken(1, 120, 1.25, "It is here.", "Bob: it is HERE."),
    "h": spoken(1, 75, 1.25, "alice: I ask\nbob: I answer", "yes"),
    "i": spoken(0, 2100, 2.0, capped=True),
}
PAPER = dict(zip("abcdefghi", (1.385, 1.2, 0.72, 0.95, 0.5, 10.64, 0.52, 0.5, -2.0), strict=True))
DEFAULT = {**PAPER, "f": 2.64}
FIRED = {"e": ("too_short",), "g": ("parrot",), "h": ("ventriloquist",), "i": ("too_long", "overlong")}


@pytest.mark.parametrize(
    ("config", "expected"), [(RewardConfig(), DEFAULT), (RewardConfig.paper(), PAPER)], ids=["ours", "paper"]
)
def test_the_worked_example_comes_out(config: RewardConfig, expected: dict[str, float]) -> None:
    made = dict(zip(NINE, rewards(list(NINE.values()), config), strict=True))
    assert {k: r.normaliser for k, r in made.items()} == dict.fromkeys(NINE, 150.0)
    assert {k: r.total for k, r in made.items()} == pytest.approx(expected, abs=1e-3)
    assert {k: r.guards for k, r in made.items() if r.guards} == FIRED
    kept = {k for k, r in made.items() if r.selectable and r.total > 0.5}
    assert kept == ({"a", "b", "c", "f", "g"} if config.task_floor else {"a", "b", "c", "d", "f", "g"})
    best = max((r.total, k) for k, r in made.items() if r.selectable)[1]
    assert best == "f"


def test_every_component_is_kept() -> None:
    terms = reward(NINE["a"], 150)
    assert terms.to_dict() == {
        "task": 1,
        "tokens": 60,
        "normaliser": 150,
        "ratio": 0.4,
        "nll": 1.6,
        "task_term": 1,
        "token_term": pytest.approx(-0.24),
        "loss_term": 0.625,
        "guards": (),
        "selectable": True,
        "total": pytest.approx(1.385),
    }


@given(
    st.floats(0, 1),
    st.integers(0, 3000),
    st.floats(0.5, 8),
    st.floats(0, 1),
    st.integers(1, 500),
    st.floats(0.01, 3),
)
def test_reward_falls_in_tokens_and_nll_and_rises_in_score(
    task: float, tokens: int, nll: float, more: float, longer: int, worse: float
) -> None:
    free = RewardConfig(guards=frozenset())
    base = reward(spoken(task, tokens, nll), 100, free).total
    assert reward(spoken(task, tokens + longer, nll), 100, free).total < base
    assert reward(spoken(task, tokens, nll + worse), 100, free).total < base
    assert reward(spoken(min(1.0, task + more), tokens, nll), 100, free).total >= base


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=8))
def test_the_longest_of_a_group_costs_the_whole_token_weight(counts: list[int]) -> None:
    made = rewards([spoken(1, n, 1.0) for n in counts], RewardConfig(guards=frozenset()))
    assert max(r.ratio for r in made) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("dialogue", "guard", "fires"),
    [
        (spoken(1, 39, 1.0), "too_short", True),
        (spoken(1, 40, 1.0), "too_short", True),
        (spoken(1, 41, 1.0), "too_short", False),
        (spoken(1, 2000, 1.0), "overlong", False),
        (spoken(1, 2001, 1.0), "overlong", True),
        (Dialogue(0, (), {"message": 50}), "overlong", True),
        (spoken(1, 50, 1.0, capped=True), "too_long", True),
        (spoken(1, 50, 1.0, "Yes.", "Alice: no", "YES. "), "parrot", True),
        (spoken(1, 50, 1.0, "Alice: yes", "Bob: yes"), "parrot", True),
        (spoken(1, 50, 1.0, "yes", "no"), "parrot", False),
        (spoken(1, 50, 1.0, "<A>x</A>", "<A>x</A>"), "parrot", False),
        (spoken(1, 50, 1.0, "Alice: one", "Bob: two"), "ventriloquist", False),
        (spoken(1, 50, 1.0, "Alice: one\nAlice: two", "three"), "ventriloquist", True),
        (spoken(1, 50, 1.0, "one\n  bob: two", "three"), "ventriloquist", True),
        (spoken(1, 50, 1.0, "I asked bob: nothing", "three"), "ventriloquist", False),
    ],
)
def test_a_guard_fires_at_its_bound_and_can_be_switched_off(
    dialogue: Dialogue, guard: str, fires: bool
) -> None:
    on = reward(dialogue, 100)
    assert (guard in on.guards) == fires
    off = reward(dialogue, 100, RewardConfig(guards=frozenset(GUARDS) - {guard}))
    assert guard not in off.guards


def test_an_agent_called_answer_makes_no_ventriloquist_of_who_marks_an_answer() -> None:
    talk = Dialogue(
        1.0,
        (
            Utterance("alice", "Ada has a cat.\nAnswer: cat", 1.0),
            Utterance("answer", "Answer: a cat", 1.0),
        ),
        {"message": 50},
    )
    assert reward(talk, 100).guards == () and reward(talk, 100).selectable
    said = (replace(talk.messages[0], text="Ada has a cat.\nAnswer: <A>cat</A>\nAlice: or\nAlice: not"),)
    assert reward(replace(talk, messages=said), 100).guards == ("ventriloquist",)


def test_marks_alone_are_parroting_only_as_in_the_paper() -> None:
    agreed = spoken(1, 50, 1.0, "<A>x</A>", "<A>x</A>")
    assert reward(agreed, 100).loss_term == 1.0
    assert reward(agreed, 100, RewardConfig.paper()).loss_term == 0.0


def test_a_failed_likelihood_leaves_a_dialogue_out_and_nothing_to_score_costs_nothing() -> None:
    failed = reward(spoken(1, 50, math.nan), 100)
    assert math.isnan(failed.total) and not failed.selectable
    assert failed.to_dict()["total"] is None
    silent = reward(spoken(1, 50, None), 100)
    assert silent.loss_term == 0.0 and silent.selectable and silent.nll is None


def test_without_a_floor_a_likelihood_of_one_has_no_bound_and_is_not_selected() -> None:
    terms = reward(spoken(1, 50, 0.0), 100, RewardConfig.paper())
    assert terms.loss_term == math.inf and not terms.selectable


def test_a_longer_arm_moves_group_max_but_not_a_fixed_normaliser() -> None:
    arms, absurd = [spoken(1, 60, 1.0), spoken(1, 80, 1.0)], spoken(1, 1900, 1.0)
    assert rewards(arms)[0].total != rewards([*arms, absurd])[0].total
    assert reward(arms[0], 81).total == reward(arms[0], 81).total == pytest.approx(1 - 0.6 * 60 / 81 + 1)


def test_a_group_of_one_and_an_empty_calibration_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        group_max([spoken(1, 60, 1.0)])
    with pytest.raises(ConfigError, match="no dialogues"):
        quantile([])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"token_weight": -1}, "token_weight"),
        ({"loss_floor": math.nan}, "loss_floor"),
        ({"count": "words"}, "count"),
        ({"guards": frozenset(["shy"])}, "shy"),
    ],
)
def test_a_reward_that_makes_no_sense_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RewardConfig(**bad)


def test_a_score_out_of_range_a_zero_normaliser_and_unknown_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match="task score"):
        reward(spoken(1.5, 60, 1.0), 100)
    with pytest.raises(ConfigError, match="normaliser"):
        reward(spoken(1, 60, 1.0), 0)
    with pytest.raises(ConfigError, match="has message"):
        reward(spoken(1, 60, 1.0), 100, RewardConfig(count="total"))


def test_a_parrot_whose_likelihood_failed_is_not_selected_although_its_loss_term_is_known() -> None:
    said = Utterance("a", "the same words", math.nan)
    made = reward(Dialogue(1.0, (said, said), {"message": 50}), 100.0)
    assert made.guards == ("parrot",) and made.loss_term == 0.0 and not made.selectable
