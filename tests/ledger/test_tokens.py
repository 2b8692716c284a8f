"""Attribution: the parts of a call's input sum to the provider's total, always."""

from __future__ import annotations

import gc
import hashlib
import sys
import types
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.ledger import tokens
from agentcomm.ledger.tokens import TiktokenCounter, apportion, attribute
from agentcomm.message import Delivery, EdgeKey, Message
from agentcomm.prompting import Prompt, PromptMessage, Segment

pytestmark = pytest.mark.anyio

EDGE = EdgeKey("critic", "solver")
BACK = EdgeKey("critic", "solver", "temporal")


class Words:
    """Counts words; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def count_tokens(self, text: str) -> int | None:
        self.asked.append(text)
        return len(text.split())


class Mute:
    async def count_tokens(self, text: str) -> int | None:
        return None


class Broken:
    async def count_tokens(self, text: str) -> int | None:
        raise OSError("connection refused")


def read(edge: EdgeKey, text: str) -> Segment:
    return Segment(edge, text, Delivery(edge, Message(edge.sender, 1, text), text))


PROMPT = Prompt(
    (
        PromptMessage("system", (Segment("system", "be brief"),)),
        PromptMessage(
            "user", (Segment("task", "what is this"), read(EDGE, "one two three"), read(BACK, "four"))
        ),
        PromptMessage("assistant", (Segment("memory", "I said"),)),
    )
)

texts = st.text(st.characters(exclude_categories=[]), max_size=40)
segments = st.one_of(
    st.builds(Segment, st.sampled_from(["system", "task", "memory"]), texts),
    st.builds(read, st.sampled_from([EDGE, BACK, EdgeKey("a", "b")]), texts),
)
prompts = st.lists(st.lists(segments, max_size=4), max_size=4).map(
    lambda ms: Prompt(tuple(PromptMessage("user", tuple(m)) for m in ms))
)


@given(prompts, st.integers(0, 2000), st.sampled_from([None, Words(), Mute(), Broken()]))
def test_parts_sum_to_the_total_exactly_and_none_is_negative(
    prompt: Prompt, total: int, counter: Words | Mute | Broken | None
) -> None:
    got = anyio.run(attribute, prompt, total, counter)
    assert got.parts is not None
    assert sum(got.parts.values()) == total
    assert min(got.parts.values()) >= 0
    assert "template" in got.parts
    shown = [s for s in prompt.segments if s.delivery]
    assert len(got.delivery_tokens) == len(shown)
    for edge in {str(s.part) for s in shown}:
        on_edge = [n for s, n in zip(shown, got.delivery_tokens, strict=True) if str(s.part) == edge]
        assert sum(n or 0 for n in on_edge) == got.parts[edge]


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(0, 10**9))
def test_apportioned_shares_are_whole_and_nearly_proportional(weights: list[int], total: int) -> None:
    shares = apportion(weights, total)
    whole = sum(weights)
    assert sum(shares) == (total if whole else 0)
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share * whole - weight * total) < max(whole, 1)


async def test_local_counts_give_the_shares_and_the_rest_is_the_template() -> None:
    got = await attribute(PROMPT, 20, Words())
    assert got.parts == {"system": 2, "task": 3, "critic->solver": 4, "memory": 2, "template": 9}
    assert got.delivery_tokens == [3, 1]
    assert not got.estimated


async def test_local_counts_beyond_the_total_are_scaled_down_and_leave_no_template() -> None:
    got = await attribute(PROMPT, 6, Words())
    assert got.parts == {"system": 1, "task": 2, "critic->solver": 2, "memory": 1, "template": 0}


@pytest.mark.parametrize(("total", "template"), [(10, 0), (11, 0), (12, 1)])
async def test_no_token_is_lost_where_local_counts_and_total_nearly_agree(total: int, template: int) -> None:
    got = await attribute(PROMPT, total, Words())  # 11 words
    assert got.parts is not None
    assert (sum(got.parts.values()), got.parts["template"]) == (total, template)


@pytest.mark.parametrize("counter", [None, Mute(), Broken()])
async def test_without_a_tokenizer_shares_are_by_length_and_marked(counter: Mute | Broken | None) -> None:
    # 43 bytes (8 + 12 + 13 + 4 + 6) and 3 messages: 15 tokens for the template, then 2 a byte.
    got = await attribute(PROMPT, 15 + 2 * 43, counter)
    assert got.parts == {"system": 16, "task": 24, "critic->solver": 34, "memory": 12, "template": 15}
    assert got.delivery_tokens == [26, 8]
    assert got.estimated


async def test_an_estimated_template_leaves_at_least_half_to_the_texts() -> None:
    got = await attribute(PROMPT, 9, None)
    assert got.parts is not None
    assert got.parts["template"] == 4


async def test_an_unknown_total_leaves_parts_unknown_and_messages_counted_locally() -> None:
    assert await attribute(PROMPT, None, None) == tokens.Attribution(None, [None, None], False)
    assert await attribute(PROMPT, None, Words()) == tokens.Attribution(None, [3, 1], False)


async def test_a_text_is_counted_once_per_counter() -> None:
    first, second = Words(), Words()
    for _ in range(3):
        await attribute(PROMPT, 20, first)
    await attribute(PROMPT, 20, second)
    assert first.asked == second.asked == [s.text for s in PROMPT.segments]


async def test_remembered_counts_are_bounded_and_forgotten_with_their_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "COUNTS_KEPT", 3)
    counter = Words()
    for n in range(10):
        await attribute(Prompt((PromptMessage("user", (Segment("task", f"text {n}"),)),)), 5, counter)
    assert len(tokens._memory_of(counter)) == 3
    key = id(counter)
    assert key in tokens._memories
    del counter
    gc.collect()
    assert key not in tokens._memories


# ------------------------------------------------------------------ tiktoken


class FakeEncoding:
    def encode(self, text: str, *, disallowed_special: object) -> list[int]:
        assert disallowed_special == ()
        return [0] * len(text.split())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for tiktoken; lists the encodings that were made (which may use the network)."""
    made: list[str] = []
    fake = types.ModuleType("tiktoken")

    def name_for_model(model: str) -> str:
        return {"gpt-4o": "o200k_base", "gpt-2": "gpt2"}[model]

    def get_encoding(name: str) -> FakeEncoding:
        made.append(name)
        return FakeEncoding()

    fake.encoding_name_for_model = name_for_model  # type: ignore[attr-defined]
    fake.get_encoding = get_encoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiktoken", fake)
    return made


def put_encoding(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = b"ranks") -> None:
    url = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
    (folder / hashlib.sha1(url.encode()).hexdigest()).write_bytes(content)
    monkeypatch.setitem(tokens._ENCODINGS, "o200k_base", hashlib.sha256(b"ranks").hexdigest())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


async def test_tiktoken_counts_if_its_file_is_at_hand(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_encoding(tmp_path, monkeypatch)
    counter = TiktokenCounter.for_model("openai/gpt-4o")
    assert counter is not None
    assert await counter.count_tokens("two words") == 2
    assert made == ["o200k_base"]


def test_tiktoken_is_never_allowed_to_fetch_a_file(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert TiktokenCounter.for_model("openai/gpt-4o") is None  # no file
    put_encoding(tmp_path, monkeypatch, content=b"damaged")
    assert TiktokenCounter.for_model("openai/gpt-4o") is None  # tiktoken would fetch it anew
    put_encoding(tmp_path, monkeypatch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert TiktokenCounter.for_model("openai/gpt-4o") is None  # its cache is turned off
    assert made == []


def test_other_models_have_no_tiktoken_counter(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("openai/llama-3", "local/smollm2", "openai/gpt-2"):
        assert TiktokenCounter.for_model(model) is None
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert TiktokenCounter.for_model("openai/gpt-4o") is None  # not installed
