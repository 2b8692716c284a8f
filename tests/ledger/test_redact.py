"""No secret is stored or shown; what only resembles one a little is left alone."""

from __future__ import annotations

import pytest

from agentcomm.ledger.redact import HIDDEN, Redactor, redact

KEY = "abcDEF0123456789ghiJKL"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-proj-{KEY}. You can find your API key at https://x",
        f"Incorrect API key provided: {KEY}.",
        "Incorrect API key provided: sk-abcDE************6789.",
        f"Authorization: Bearer {KEY}",
        f"{{'authorization': 'bearer {KEY}'}}",
        f"Authorization: Basic {KEY}==",
        f"x-api-key: {KEY}",
        f'{{"api_key": "{KEY}"}}',
        f"OPENAI_API_KEY={KEY} is wrong",
        f"https://host/v1?api_key={KEY}&x=1",
        f"https://user:{KEY}@host:8000/v1 refused",
        f"sk-ant-api03-{KEY}",
        f"token hf_{KEY}",
        f"ghp_{KEY}",
        f"gsk_{KEY}",
        f"AIza{KEY}{KEY}",
        "AKIAABCDEFGHIJKLMNOP",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIi{KEY}.{KEY}",
        f"client_secret={KEY}",
    ],
)
def test_what_has_the_shape_of_a_key_or_token_is_hidden(text: str) -> None:
    clean = redact(text)
    assert HIDDEN in clean
    for piece in (KEY, "6789", "ABCDEFGHIJKLMNOP"):
        assert piece not in clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 429 from http://127.0.0.1:8000/v1: rate limit reached, retry after 20 s",
        "the token limit of 4096 was exceeded by 12 tokens",
        "model 'openai/gpt-4o-mini' not found",
        "task-1234567890 failed in /home/user/risk-assessment/run",
        "the bearer of bad news",
        "3e5f0c" * 10,
    ],
)
def test_ordinary_errors_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_registered_values_are_hidden_wherever_they_stand() -> None:
    assert redact("a correct horse b", ["correct horse"]) == f"a {HIDDEN} b"
    assert redact("?q=correct%20horse", ["correct horse"]) == f"?q={HIDDEN}"
    assert redact("xxlong-secretyy", ["long-secret"]) == f"xx{HIDDEN}yy"


def test_a_secret_that_contains_another_is_hidden_whole() -> None:
    assert redact("password-and-more", ["password", "password-and-more"]) == HIDDEN


def test_placeholders_make_no_holes() -> None:
    assert redact("EMPTY is x and dummy", ["EMPTY", "x", "dummy", "", None]) == "EMPTY is x and dummy"


def test_exact_hides_registered_values_only() -> None:
    redactor = Redactor(["long-secret"])
    assert redactor.exact(f"long-secret Bearer {KEY}") == f"{HIDDEN} Bearer {KEY}"
