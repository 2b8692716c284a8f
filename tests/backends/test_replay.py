from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentcomm.backends import Replay, Scripted, resolve
from agentcomm.backends.base import ChatRequest
from agentcomm.errors import BackendError, ConfigError
from agentcomm.ledger.rows import CallRow
from agentcomm.ledger.store import Ledger
from agentcomm.message import ChatMessage, Reply, Usage

pytestmark = pytest.mark.anyio


def request(text: str = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "scripted", "messages": (ChatMessage("user", text),), "seed": 1, **fields})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "replies.sqlite"


async def test_an_equal_request_is_answered_from_the_store_and_says_so(store: Path) -> None:
    inner = Scripted(["first", "second"])
    cache = Replay(inner, store)
    made, hit = await cache.chat(request()), await cache.chat(request())
    assert (made.text, made.cache_hit) == ("first", False)
    assert (hit.text, hit.cache_hit, hit.usage, hit.finish_reason) == ("first", True, made.usage, "stop")
    assert len(inner.requests) == 1
    assert cache.name == inner.name
    assert cache.endpoint == inner.endpoint
    await cache.aclose()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"model": "other"},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"max_tokens": 3},
        {"stop": ("x",)},
        {"schema": {"type": "object"}},
        {"messages": (ChatMessage("system", "hi"),)},
    ],
)
async def test_any_difference_is_another_request(store: Path, change: dict[str, Any]) -> None:
    cache = Replay(Scripted(["first", "second"]), store)
    await cache.chat(request())
    assert (await cache.chat(replace(request(), **change))).text == "second"
    await cache.aclose()


async def test_what_is_kept_survives_and_can_be_used_by_two_at_once(store: Path) -> None:
    usage = Usage(5, 6, None, 2)
    one, two = Replay(Scripted([Reply("é\n", usage, "length", "m")]), store), Replay(Scripted(), store)
    await one.chat(request())
    hit = await two.chat(request())
    assert (hit.text, hit.usage, hit.finish_reason, hit.model) == ("é\n", usage, "length", "m")
    await one.aclose()
    await two.aclose()
    assert (await two.chat(request())).text == "é\n"
    await two.aclose()


async def test_errors_are_never_kept(store: Path) -> None:
    cache = Replay(Scripted([BackendError("busy", retryable=True), "fine"]), store)
    with pytest.raises(BackendError):
        await cache.chat(request())
    assert (await cache.chat(request())).text == "fine"
    await cache.aclose()


async def test_equal_requests_in_flight_share_one_call(store: Path) -> None:
    inner = Scripted(default="once", latency_s=0.02)
    cache = Replay(inner, store)
    replies: list[Reply] = []

    async def ask(n: int) -> None:
        replies.append(await cache.chat(request(f"{n % 2}")))

    async with anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(ask, n)
    assert len(inner.requests) == 2
    assert sorted(r.cache_hit for r in replies) == [False] * 2 + [True] * 8
    await cache.aclose()


async def test_when_the_shared_call_fails_the_next_in_line_makes_its_own(store: Path) -> None:
    inner = Scripted([BackendError("busy"), "fine"], latency_s=0.01)
    cache = Replay(inner, store)
    outcomes: list[str] = []

    async def ask() -> None:
        try:
            outcomes.append((await cache.chat(request())).text)
        except BackendError as error:
            outcomes.append(str(error))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert sorted(outcomes) == ["busy", "fine", "fine"]
    assert len(inner.requests) == 2
    await cache.aclose()


async def test_when_the_shared_call_is_cancelled_nobody_waits_for_ever(store: Path) -> None:
    inner = Scripted(default="fine", latency_s=0.05)
    cache = Replay(inner, store)
    texts: list[str] = []

    async def impatient() -> None:
        with anyio.move_on_after(0.01):
            await cache.chat(request())

    async def patient() -> None:
        texts.append((await cache.chat(request())).text)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(impatient)
            group.start_soon(patient)
    assert texts == ["fine"]
    await cache.aclose()


async def test_a_reply_that_cannot_be_kept_is_not_lost(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Replay(Scripted(["paid"]), store)
    with sqlite3.connect(store) as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON replies BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        )
    db.close()
    assert (await cache.chat(request())).text == "paid"
    assert "disk is full" in caplog.text
    await cache.aclose()


async def test_a_store_is_played_back_strictly(store: Path) -> None:
    cache = Replay(Scripted(["said"]), store)
    await cache.chat(request("asked"))
    await cache.aclose()
    played = resolve(f"replay/{store}")
    assert played.name == f"replay/{store}"
    hit = await played.chat(request("asked", model=played.name))
    assert (hit.text, hit.cache_hit) == ("said", True)
    with pytest.raises(BackendError, match="never asked") as caught:
        await played.chat(request("never asked", model=played.name))
    assert (caught.value.kind, caught.value.retryable) == ("not_recorded", False)
    await played.aclose()


async def test_two_models_that_answered_differently_are_not_confused(store: Path) -> None:
    for model, text in (("a/x", "yes"), ("b/y", "no")):
        cache = Replay(Scripted([text]), store)
        await cache.chat(request(model=model))
        await cache.aclose()
    played = Replay.of_run(store)
    assert (await played.chat(request(model="b/y"))).text == "no"
    with pytest.raises(BackendError, match=r"a/x, b/y"):
        await played.chat(request(model=played.name))
    await played.aclose()


async def record(folder: Path, model: str, **replies: str | None) -> None:
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        for n, (text, reply) in enumerate(replies.items()):
            row = CallRow(
                id=f"{model}{n}",
                item="i",
                sample=0,
                round=1,
                agent=text,
                attempt=1,
                phase="evaluate",
                model=model,
                request_id=request(text, model=model).id,
                started_at=float(n),
                input_tokens=3,
                reply_text=reply,
                error_kind=None if reply is not None else "timeout",
            )
            await ledger.finish_call(row)


async def test_a_run_is_played_back_from_its_ledger(tmp_path: Path) -> None:
    await record(tmp_path, "local/smollm2", hi="hello", empty="", failed=None)
    played = resolve(f"replay/{tmp_path}")
    hit = await played.chat(request("hi", model=played.name))
    assert (hit.text, hit.cache_hit, hit.model) == ("hello", True, "local/smollm2")
    assert hit.usage == Usage(3)
    assert (await played.chat(request("empty", model=played.name))).text == ""
    for text in ("failed", "other"):
        with pytest.raises(BackendError, match=text):
            await played.chat(request(text, model=played.name))
    await played.aclose()


async def test_what_cannot_be_replayed_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing recorded"):
        resolve(f"replay/{tmp_path}")
    with pytest.raises(ConfigError, match="nothing recorded"):
        resolve(f"replay/{tmp_path / 'nowhere'}")
    await record(tmp_path, "m", failed=None)
    with pytest.raises(ConfigError, match="no reply"):
        resolve(f"replay/{tmp_path}")
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be read as if it were one " * 20)
    with pytest.raises(ConfigError, match="notes"):
        resolve(f"replay/{text}")
    with pytest.raises(ConfigError, match="notes"):
        Replay(Scripted(), text)
    with pytest.raises(ConfigError, match="name another"):
        Replay(Scripted(), tmp_path / "ledger.sqlite")
    with pytest.raises(ConfigError, match="backend"):
        Replay(None, tmp_path / "new.sqlite")


async def test_the_cache_counts_and_checks_with_what_is_behind_it(store: Path) -> None:
    checked: list[bool] = []

    class Checked(Scripted):
        async def check(self) -> None:
            checked.append(True)

    cache = Replay(Checked(), store)
    await cache.check()
    assert checked == [True]
    assert await cache.count_tokens("one two") == 2
    await cache.aclose()
