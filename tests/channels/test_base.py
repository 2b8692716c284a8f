"""What holds for every channel with a budget: met, never longer, whole characters, kept pieces, same again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentcomm import channels
from agentcomm.channels.base import BudgetInfeasible, Compressor
from agentcomm.channels.budget import ESTIMATE, Meter, fit
from agentcomm.channels.protect import find, lost, pieces
from agentcomm.channels.relevance import together
from agentcomm.errors import BackendError, ChannelError, ConfigError, GraphError, LimitExceeded
from tests.channels.doubles import TEXT, TROUBLE, Desk, compress, turn

pytestmark = pytest.mark.anyio

BUDGETS = st.integers(1, 60)
TEXTS = (
    st.sampled_from(TROUBLE)
    | st.lists(st.sampled_from(TROUBLE), max_size=2).map(" ".join)
    | st.text(max_size=400)
)
POLICIES = st.fixed_dictionaries(
    {"infeasible": st.sampled_from(["pass", "cut", "fail"]), "protect": st.sampled_from([(), ("numbers",), ("code", "json", "urls", "quotes", "numbers")])}
)  # fmt: skip
REPLIES = TEXTS | st.sampled_from(["", "I'm sorry, I can't.", "Sure! Here is the summary:", TEXT, "ok"])


def make(kind: str, budget: int, policy: dict[str, Any]) -> Compressor:
    made: Compressor = getattr(channels, kind)(budget=budget, **policy)
    return made


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["summarise", "extract", "rules", "dedup", "reference"]),
    text=TEXTS,
    budget=BUDGETS,
    policy=POLICIES,
    replies=st.lists(REPLIES, min_size=2, max_size=2),
    words=st.booleans(),
)
def test_budgets_are_met_unless_the_original_is_passed_for_a_reason(
    kind: str, text: str, budget: int, policy: dict[str, Any], replies: list[str], words: bool
) -> None:
    async def go() -> None:
        channel = make(kind, budget, policy)
        desk = Desk(list(replies)) if words else Desk(list(replies), counter=lambda text: None)
        meter = await Meter.of(desk)
        try:
            made = await channel.compress(text, turn=turn(desk))
        except BudgetInfeasible:
            assert policy["infeasible"] == "fail"
            return
        note = made.compression
        original, got = await meter.count(text), await meter.count(made.text)
        assert (note.original_tokens, note.tokens, note.budget) == (original, got, budget)
        assert got <= original  # never longer than the input
        if note.status == "passed":
            assert made.text == text  # byte for byte
            assert note.reason
            assert got <= budget or note.reason == "empty" or note.reason.startswith("protected_content")
        else:
            assert got <= budget
            if policy["infeasible"] != "cut":
                assert lost(made.text, pieces(text, channel.protect)) == []
        desk.replies = list(replies)
        assert await channel.compress(text, turn=turn(desk)) == made  # the same again

    anyio.run(go)


@settings(max_examples=80)
@given(
    text=TEXTS, limit=st.integers(0, 40), keep=st.sampled_from(["head", "tail", "both"]), words=st.booleans()
)
def test_what_is_cut_fits_and_is_cut_through_nothing(text: str, limit: int, keep: Any, words: bool) -> None:
    async def go() -> None:
        meter = await Meter.of(Desk() if words else None)
        out = await fit(text, limit, meter, keep)
        assert await meter.count(out) <= limit
        parts = out.split(" […] ") if keep == "both" else [out]
        assert all(part in text for part in parts)
        whole = text.strip()
        cut = len(out) if keep == "head" else len(whole) - len(out)
        if keep != "both" and out:
            assert not any(s.start < cut < s.end for s in find(whole))

    anyio.run(go)


@pytest.mark.parametrize("text", TROUBLE)
async def test_no_character_is_ever_halved(text: str) -> None:
    regex = pytest.importorskip("regex")
    whole = regex.findall(r"\X", text)
    for budget in (1, 2, 5, 9):
        made = await channels.extract(budget, protect=()).compress(text)
        if made.compression.status != "passed":
            assert set(regex.findall(r"\X", made.text)) <= {*whole, " ", "\n"}


async def test_long_texts_are_cut_in_seconds() -> None:
    text = " ".join(
        f"Sentence {i} is about the number {i * 7 % 101} and the town of Lima." for i in range(1500)
    )
    made = await channels.extract(50, protect=()).compress(text, turn=turn())
    assert made.compression.tokens is not None and 0 < made.compression.tokens <= 50
    assert (await fit("é" * 100_000, 10, Meter())) == "é" * 15


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "64", None])
async def test_a_budget_that_is_no_positive_number_is_refused(budget: Any) -> None:
    for kind in ("summarise", "extract"):
        with pytest.raises(ConfigError, match="budget"):
            getattr(channels, kind)(budget)
    with pytest.raises(ConfigError, match=r"tokens=0|tokens=-1|characters= or tokens=|tokens="):
        channels.truncate(tokens=budget)


@pytest.mark.parametrize("text", ["", " \n", "x", "one two three"])
async def test_texts_within_the_budget_are_passed_as_they_are_and_ask_no_model(text: str) -> None:
    for channel in (
        channels.summarise(3),
        channels.extract(3),
        channels.rules(3),
        channels.reference(3),
        channels.dedup(),
    ):
        made = await compress(channel, text)
        assert made.text == text
        assert made.compression.status == "passed"
    assert (await compress(channels.summarise(3), text)).compression.reason == (
        "too_short" if text.strip() else "empty"
    )


async def test_what_must_be_kept_and_does_not_fit_passes_is_cut_or_fails_as_asked() -> None:
    text = "The values are 11, 12, 13, 14, 15 and 16, which nobody expected at all."
    made = await compress(channels.summarise(5), text)
    assert (made.text, made.compression.status) == (text, "passed")
    assert made.compression.reason == "protected_content: needs 11 tokens"
    with pytest.raises(BudgetInfeasible, match="takes 11 tokens, the budget is 5") as caught:
        await compress(channels.summarise(5, infeasible="fail"), text)
    assert caught.value.min_tokens == 11
    cut = await compress(channels.extract(5, infeasible="cut"), text)
    assert (cut.text, cut.compression.tokens) == ("The values are 11,", 5)


async def test_what_a_model_lost_is_put_back_within_the_budget() -> None:
    text = f'{TEXT} The code is `x = 1`, see https://a.b/c, "as he said", {{"k": 2}} and 42.'
    made = await compress(channels.summarise(45), text, "Ben has a goat and the number 42 matters.")
    assert made.text == (
        'Ben has a goat and the number 42 matters. (`x = 1`; https://a.b/c; "as he said"; {"k": 2})'
    )
    assert (made.compression.status, made.compression.adherent) == ("compressed", True)
    tight = await compress(channels.summarise(36), text, "Ben has a goat. " + "More words follow here. " * 9)
    assert lost(tight.text, pieces(text)) == []
    assert tight.compression.tokens is not None and tight.compression.tokens <= 36
    assert (tight.compression.status, tight.compression.reason, tight.compression.adherent) == (
        "cut",
        "over_budget",
        False,
    )


def test_pieces_with_lines_go_below_others_into_one_line() -> None:
    assert together("Short.", ["1", "```\nx\n```"]) == "Short.\n(1)\n```\nx\n```"
    assert together("", ["1", "2"]) == "1; 2"


async def test_without_a_tokenizer_bytes_are_counted_and_it_says_so() -> None:
    made = await channels.extract(20, protect=()).compress(TEXT)
    assert made.compression.counted_by == ESTIMATE
    assert len(made.text.encode()) <= 60
    counted = await compress(channels.extract(20, protect=()), TEXT)
    assert counted.compression.counted_by == "words"


async def test_a_tokenizer_that_stops_answering_fails_the_delivery() -> None:
    answers = iter([1, 500])
    with pytest.raises(ChannelError, match="the tokenizer of words stopped answering"):
        await channels.extract(20).compress(TEXT, turn=turn(Desk(counter=lambda text: next(answers, None))))


DOWN = BackendError("nobody answers", kind="unreachable", retryable=True)


async def test_a_compressor_that_fails_fails_falls_back_or_passes_as_asked() -> None:
    with pytest.raises(BackendError, match="nobody answers"):
        await compress(channels.summarise(12), TEXT, DOWN)
    fell = await compress(channels.summarise(12, on_failure="extract"), TEXT, DOWN)
    assert fell.text == "Ben has a pet goat that he likes very much."
    assert (fell.compression.status, fell.compression.adherent) == ("cut", False)
    assert fell.compression.reason == "compressor_error: unreachable: nobody answers"
    whole = await compress(channels.summarise(12, on_failure="verbatim"), TEXT, DOWN)
    assert (whole.text, whole.compression.status, whole.compression.adherent) == (TEXT, "passed", False)
    assert whole.compression.reason == "compressor_error: unreachable: nobody answers"


async def test_limits_and_dead_servers_are_never_papered_over() -> None:
    fatal = BackendError("gone", kind="unreachable", fatal=True)
    limit = LimitExceeded("enough", scope="item", limit="tokens")
    for error in (fatal, limit):
        with pytest.raises(type(error)):
            await compress(channels.summarise(12, on_failure="verbatim"), TEXT, error)


@pytest.mark.parametrize(
    "channel",
    [
        channels.summarise(
            64, "local/smollm2", query=True, temperature=0.5, retries=0, protect=["urls", "numbers"]
        ),
        channels.summarise(64),
        channels.extract(32, infeasible="cut", on_failure="verbatim"),
        channels.extract(32, "embedding", model="folder", query=False),
        channels.truncate(80),
        channels.truncate(tokens=20, keep="both"),
        channels.rules(),
        channels.rules(20, filler=False),
        channels.dedup(),
        channels.reference(64, protect=("numbers",)),
        channels.llmlingua2("folder", 32),
    ],
)
def test_a_channel_comes_back_from_its_spec_and_from_words(channel: Any) -> None:
    spec = channel.spec()
    assert channels.from_spec(spec) == channel
    words = ",".join(
        f"{k}={'+'.join(v) if isinstance(v, list) else str(v).lower() if isinstance(v, bool) else v}"
        for k, v in spec.items()
        if k != "name"
    )
    assert channels.from_words(f"{spec['name']}:{words}") == channel


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ("shrink:budget=3", GraphError, "unknown channel 'shrink'; known: truncate, summarise"),
        ("summarise", GraphError, "missing"),
        ("summarise:64", ConfigError, "write NAME:KEY=VALUE"),
        ("summarise:budget=0", ConfigError, "budget=0; it must be a whole number of at least 1"),
        ("summarise:budget=9,colour=red", GraphError, "colour"),
        ("summarise:budget=9,temperature=-1", ConfigError, "at least 0"),
        ("summarise:budget=9,on_failure=cry", ConfigError, "there are: fail, extract, verbatim"),
        ("extract:budget=9,by=embedding", ConfigError, "model=FOLDER_OR_HUB_NAME"),
        ("extract:budget=9,protect=faces", ConfigError, "protect=faces"),
        ("truncate:tokens=3,characters=3", ConfigError, "either characters= or tokens="),
        ("truncate:characters=3,keep=tail", ConfigError, "needs tokens="),
    ],
)
def test_what_cannot_be_a_channel_is_refused_in_a_sentence(
    words: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        channels.from_words(words)


def test_another_process_makes_the_same_bytes() -> None:
    code = (
        "import anyio, sys; from agentcomm import channels; from tests.channels.doubles import TEXT, TROUBLE\n"
        "async def go():\n"
        "    for text in (TEXT, *TROUBLE):\n"
        "        for c in (channels.extract(9, protect=()), channels.rules(9, protect=())):\n"
        "            sys.stdout.write(ascii((await c.compress(text)).text))\n"
        "anyio.run(go)"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] != ""


async def test_concurrent_deliveries_with_different_settings_do_not_touch_each_other() -> None:
    wanted = {b: (await compress(channels.extract(b, protect=()), TEXT)).text for b in range(5, 40)}
    got: dict[int, str] = {}

    async def one(budget: int) -> None:
        got[budget] = (await compress(channels.extract(budget, protect=()), TEXT)).text

    async with anyio.create_task_group() as group:
        for budget in wanted:
            group.start_soon(one, budget)
    assert got == wanted
