from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.backends import Echo, Scripted
from agentcomm.backends.base import ChatRequest, TokenCounter
from agentcomm.backends.scripted import TEMPLATE_TOKENS, count_words
from agentcomm.errors import BackendError, ConfigError
from agentcomm.message import ChatMessage, Reply, Usage

pytestmark = pytest.mark.anyio


def request(*texts: str, **fields: Any) -> ChatRequest:
    return ChatRequest("scripted", tuple(ChatMessage("user", t) for t in texts), **fields)


async def said(model: Scripted | Echo, *texts: str, **fields: Any) -> str:
    return (await model.chat(request(*texts, **fields))).text


async def test_a_list_is_said_in_order_and_then_the_default() -> None:
    model = Scripted(["one", "two"], default="and so on")
    assert [await said(model, "x") for _ in range(4)] == ["one", "two", "and so on", "and so on"]


async def test_a_script_that_has_run_out_says_for_what() -> None:
    with pytest.raises(BackendError, match="where is it") as caught:
        await said(Scripted(["one"][:0]), "where is it")
    assert (caught.value.kind, caught.value.retryable) == ("script", False)


async def test_a_mapping_answers_by_a_text_of_the_prompt() -> None:
    model = Scripted({"critic": ["bad", "better"], "judge": "42"}, default="?")
    asked = ["the critic", "the judge", "the critic", "the judge", "the critic", "else"]
    assert [await said(model, a) for a in asked] == ["bad", "42", "better", "42", "?", "?"]


async def test_a_function_sees_the_request() -> None:
    model = Scripted(lambda r: f"{r.seed}: {r.messages[-1].content}")
    assert await said(model, "hi", seed=3) == "3: hi"


async def test_errors_are_raised_each_time_anew() -> None:
    model = Scripted({"x": BackendError("busy", kind="rate_limit", retryable=True, retry_after=2.0)})
    with pytest.raises(BackendError) as first:
        await said(model, "x")
    first.value.fatal = True
    with pytest.raises(BackendError, match="busy") as second:
        await said(model, "x")
    assert (second.value.kind, second.value.retryable, second.value.retry_after) == ("rate_limit", True, 2.0)
    assert not second.value.fatal


async def test_a_whole_reply_is_given_as_it_is() -> None:
    reply = Reply("hm", Usage(1, 2, 3, 4), "length")
    assert await Scripted([reply]).chat(request("x")) is reply


async def test_requests_are_recorded() -> None:
    model = Scripted(default="ok")
    await said(model, "a")
    await said(model, "b")
    assert [r.messages[0].content for r in model.requests] == ["a", "b"]


async def test_usage_is_the_sum_of_its_parts() -> None:
    model = Scripted(default="It is 4, I think.")
    reply = await model.chat(request("one two", "three."))
    assert isinstance(model, TokenCounter)
    parts = [await model.count_tokens(t) for t in ("one two", "three.")]
    assert parts == [2, 2]
    assert reply.usage == Usage(2 + 2 + 2 * TEMPLATE_TOKENS, count_words("It is 4, I think."))
    silent = Scripted(default="x", report_usage=False)
    assert (await silent.chat(request("a"))).usage == Usage()


@given(st.text(), st.text())
def test_counts_of_pieces_that_meet_at_a_blank_line_add_up(a: str, b: str) -> None:
    assert count_words(f"{a}\n\n{b}") == count_words(a) + count_words(b)


async def test_max_tokens_and_stop_texts_end_a_reply() -> None:
    model = Scripted(default="one two three. END four")
    cut = await model.chat(request("x", max_tokens=2))
    assert (cut.text, cut.finish_reason, cut.usage.output_tokens) == ("one two", "length", 2)
    stopped = await model.chat(request("x", stop=("END",)))
    assert (stopped.text, stopped.finish_reason) == ("one two three. ", "stop")


async def test_echo_answers_with_the_last_line_and_grows_no_longer() -> None:
    echo = Echo()
    assert echo.name == "mock/echo"
    text = await said(echo, "first", "a question\nwith two lines\n")
    assert text == "Echo: with two lines"
    assert await said(echo, f"From a:\n{text}") == text
    assert await said(echo, "") == "Echo:"
    assert (await echo.chat(replace(request("x"), messages=()))).text == "Echo:"


async def test_a_script_can_be_a_json_or_toml_file(tmp_path: Path) -> None:
    json_file, toml_file = tmp_path / "s.json", tmp_path / "s.toml"
    json_file.write_text(
        '{"by_role": {"critic": ["no", {"error": "timeout", "retryable": true}]}, "replies": ["1", "2"], "default": "d"}'
    )
    toml_file.write_text('default = "d"\nreplies = ["1"]\n[by_role]\njudge = "42"\n')
    model = Scripted.from_file(json_file)
    assert model.name == f"scripted/{json_file}"
    assert [await said(model, a) for a in ("critic", "x", "x", "x")] == ["no", "1", "2", "d"]
    with pytest.raises(BackendError) as caught:
        await said(model, "critic")
    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)
    toml = Scripted.from_file(toml_file)
    assert [await said(toml, a) for a in ("judge", "x", "judge", "x")] == ["42", "1", "42", "d"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"reply": "x"}',
        '{"replies": "x"}',
        '{"default": 3}',
        '{"by_role": {"a": [1]}}',
        '{"default": "d", "latency_s": "slow"}',
    ],
)
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"s\.json"):
        Scripted.from_file(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Scripted.from_file(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="default="):
        Scripted("just a text")
