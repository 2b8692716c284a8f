"""Prices: the user's own first, public ones without a network, unknown is None."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentcomm.errors import ConfigError
from agentcomm.ledger.prices import PriceBook
from agentcomm.message import Usage

MILLION = Usage(1_000_000, 1_000_000, 0)


def book(tmp_path: Path, text: str) -> PriceBook:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return PriceBook.load(path)


OWN = """
["openai/gpt-4o-mini"]
input = 10
cached = 1.0
output = 20

["local/smollm2"]
input = 0
output = 0

["vllm/org/name"]
input = 4
output = 8
"""


def test_the_users_prices_go_before_public_ones(tmp_path: Path) -> None:
    prices = book(tmp_path, OWN)
    assert prices.cost("openai/gpt-4o-mini", MILLION) == 30
    assert prices.cost("openai/gpt-4o", MILLION) == PriceBook.load(None).cost("openai/gpt-4o", MILLION)


def test_cached_tokens_have_their_own_rate_where_there_is_one(tmp_path: Path) -> None:
    prices = book(tmp_path, OWN)
    assert prices.cost("openai/gpt-4o-mini", Usage(1_000_000, 0, 500_000)) == 5.5
    assert prices.cost("vllm/org/name", Usage(1_000_000, 0, 500_000)) == 4


def test_a_price_of_zero_is_known(tmp_path: Path) -> None:
    prices = book(tmp_path, OWN)
    assert prices.knows("local/smollm2")
    assert prices.cost("local/smollm2", MILLION) == 0


def test_public_prices_need_no_file() -> None:
    prices = PriceBook.load(None)
    cost = prices.cost("openai/gpt-4o-mini", MILLION)
    assert cost is not None
    assert cost > 0
    half_cached = prices.cost("openai/gpt-4o-mini", Usage(1_000_000, 1_000_000, 500_000))
    assert half_cached is not None
    assert half_cached < cost


@pytest.mark.parametrize(
    "model",
    [
        "openai/no-such-model",
        "local/smollm2",
        "vllm/gpt-4o-mini",
        "mock/echo",
        "scripted/gpt-4o",
        "gpt-4o",
        "openai/",
    ],
)
def test_what_has_no_known_price_costs_none_and_not_zero(model: str) -> None:
    prices = PriceBook.load(None)
    assert not prices.knows(model)
    assert prices.cost(model, MILLION) is None


def test_unknown_tokens_cost_none(tmp_path: Path) -> None:
    for prices in (PriceBook.load(None), book(tmp_path, OWN)):
        assert prices.cost("openai/gpt-4o-mini", Usage(None, 5)) is None
        assert prices.cost("openai/gpt-4o-mini", Usage(5, None)) is None
        assert prices.cost("openai/gpt-4o-mini", Usage(5, 5, None)) == prices.cost(
            "openai/gpt-4o-mini", Usage(5, 5, 0)
        )


def test_a_server_that_reports_more_cached_than_input_tokens_breaks_nothing(tmp_path: Path) -> None:
    for prices in (PriceBook.load(None), book(tmp_path, OWN)):
        assert prices.cost("openai/gpt-4o-mini", Usage(5, 5, 9)) == prices.cost(
            "openai/gpt-4o-mini", Usage(5, 5, 5)
        )


def test_public_prices_do_not_hold_at_an_address_of_ones_own() -> None:
    at_home = PriceBook.load(None, base_url="http://127.0.0.1:8000/v1")
    assert at_home.cost("openai/gpt-4o-mini", MILLION) is None
    at_openai = PriceBook.load(None, base_url="https://api.openai.com/v1")
    assert at_openai.cost("openai/gpt-4o-mini", MILLION) == PriceBook.load(None).cost(
        "openai/gpt-4o-mini", MILLION
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[openai/gpt]", "is not TOML"),
        ("[openai.gpt-4]\ninput = 1\noutput = 1", "isn't quoted"),
        ('"openai/x" = 3', "is not a table"),
        ('["openai/x"]\ninput = 1', "has no 'output'"),
        ('["openai/x"]\ninput = 1\noutput = 1\nouput = 2', "unknown ouput"),
        ('["openai/x"]\ninput = -1\noutput = 1', "input = -1; it must be a number of 0 or more"),
        ('["openai/x"]\ninput = "1"\noutput = 1', "must be a number"),
        ('["openai/x"]\ninput = nan\noutput = 1', "must be a number"),
        ('["openai/x"]\ninput = true\noutput = 1', "must be a number"),
    ],
)
def test_a_prices_file_that_is_wrong_says_where_and_what_to_do(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        book(tmp_path, text)


def test_a_prices_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        PriceBook.load(tmp_path / "none.toml")


def test_the_ledger_does_not_import_the_price_library_until_a_public_price_is_asked_for(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from agentcomm.ledger.prices import PriceBook; from agentcomm.message import Usage\n"
        "PriceBook.load(None).cost('local/smollm2', Usage(1, 1))\n"
        "import agentcomm.ledger.store, agentcomm.ledger.usage, agentcomm.ledger.limits\n"
        "print([m for m in ('genai_prices', 'pydantic', 'httpx', 'openai', 'langgraph') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
