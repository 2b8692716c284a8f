"""Every pool of formats has natural language in it, and every format is short and shows itself."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.dialogue.formats import BANDIT, NATURAL, POOL, Format, pool
from agentcomm.errors import ConfigError
from agentcomm.loading import load_graph


def test_there_are_at_least_twelve_and_natural_language_prescribes_nothing() -> None:
    assert len(POOL) >= 12 and len(BANDIT) == 12
    assert next(iter(POOL)) == NATURAL and POOL[NATURAL].text == ""


@pytest.mark.parametrize("format", [f for f in POOL.values() if f.id != NATURAL], ids=lambda f: f.id)
def test_an_instruction_is_short_and_has_an_example(format: Format) -> None:
    # Tokens are at most characters / 2 for such text under every tokeniser we know.
    assert 0 < len(format.instruction.split()) <= 25 and format.example
    assert format.example in format.text


def test_the_json_example_is_json() -> None:
    assert set(json.loads(POOL["json"].example)) == {"know", "need", "answer"}


@given(st.lists(st.sampled_from(sorted(POOL))))
def test_natural_language_is_first_in_every_pool(ids: list[str]) -> None:
    made = list(pool(ids))
    assert made[0] == NATURAL and set(made) == {NATURAL, *ids} and len(made) == len(set(made))


def test_own_formats_join_the_pool_and_strangers_are_refused() -> None:
    mine = Format("mine", "ours", "Write backwards.")
    assert list(pool(["mine", "json"], [mine])) == [NATURAL, "mine", "json"]
    assert pool([], [mine])["mine"] is mine
    with pytest.raises(ConfigError, match="unknown formats morse"):
        pool(["morse"])
    with pytest.raises(ConfigError, match="ids of their own"):
        pool([], [Format("json", "another")])


def test_a_format_is_an_instruction_that_the_settings_take() -> None:
    graph = load_graph("information_exchange", {"instruction": POOL["json"].text})
    assert all(POOL["json"].text in a.role for a in graph.agents if a.act is None)
