"""Rates: points are what the ledger holds, curves end where they should, and nothing is paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError, TaskError, UserError
from agentcomm.evaluation.rundir import RunDir
from agentcomm.information.flops import Shape, flops_of
from agentcomm.information.rates import Rates, measure_rates
from agentcomm.information.ways import Way, budgets_of, ways_of

pytestmark = pytest.mark.anyio
BUDGETS = (10, 20, 40, 80)
FILLER = "The sky above the town was grey on that day."


def needs_the_fact(request: ChatRequest) -> str:
    """Answers right if the fact stands before it; as a compressor, says the first words it was given."""
    text = request.messages[-1].content
    if "shorten" in request.messages[0].content:
        return " ".join(text.split()[1:9])
    return "heron" if "heron" in text else "no idea"


def work(items: int = 12) -> ac.Task:
    """Two questions about each text; the fact stands later in each next text."""
    made = []
    for i in range(items):
        sentences = [FILLER] * 12
        sentences[1 + (i // 2) % 10] = "The warden saw a heron."
        made.append(
            ac.Item(
                f"q{i}",
                f"What did the warden see, asks {i}?",
                "heron",
                context=f"Text {i // 2}. " + " ".join(sentences),
            )
        )
    return ac.Task("birds", made, lambda item, text: ac.Score(float(item.answer in text)))


async def measured(
    out: Path | None, *ways: str, budgets: Any = BUDGETS, **more: Any
) -> tuple[Rates, Scripted]:
    model = Scripted(needs_the_fact, name="scripted/bird")
    rates = await measure_rates(
        work(), ways_of(list(ways)), model, budgets, out=out, executor="plain", **more
    )
    return rates, model


async def test_points_curves_and_ends_are_measured_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    out = tmp_path / "rate"
    shape = Shape(1e6, 2, 8)
    words = ("extract", "truncate")
    rates, model = await measured(out, *words, shapes={"scripted/bird": shape})
    full, none = rates.ends
    assert (full.score.mean, none.score.mean) == (1.0, 0.0)
    assert full.got is not None and full.got > 100
    assert none.got == 0
    extract, cut = rates.curves
    assert [p.score.mean for p in extract.points] == [1.0] * 4, "it is shown the question"
    scores = [p.score.mean or 0.0 for p in cut.points]
    assert scores == sorted(scores) and scores[0] < 0.3 < scores[-1]
    for point in cut.points:
        assert point.budget is not None and point.got is not None
        assert 0 < point.got <= point.budget
        assert point.kept_to_it == 1.0
        assert point.saved is not None and point.saved.mean is not None and point.saved.mean > 0
    assert rates.documents == 6, "two questions about each text"
    assert cut.fit is not None
    assert cut.fit.documents == 6
    assert cut.fit.rate == "token of scripted/bird"
    assert cut.fit.rates == pytest.approx([p.got for p in cut.points])
    assert cut.fit.distortions == pytest.approx([1 - s for s in scores])

    # What a point says is what its ledger holds.
    point = cut.points[1]
    assert point.path is not None
    with RunDir.open(Path(point.path)).ledger(read_only=True) as ledger:
        calls = ledger.calls(texts=False)
    assert point.tokens == pytest.approx(
        sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in calls) / 12
    )
    each = [flops_of(shape, c.input_tokens or 0, c.output_tokens or 0) for c in calls]
    assert point.flops is not None
    assert point.flops.decode == pytest.approx(sum(f.decode for f in each) / 12)
    assert point.flops.total == pytest.approx(sum(f.total for f in each) / 12)
    assert point.flops.total > point.flops.decode, "reading the prompts is not left out"

    facts = json.loads((out / "rate.json").read_text())
    assert facts == json.loads(json.dumps(rates.facts(), allow_nan=False))
    for name in ("rate-distortion.svg", "tokens-score.svg"):
        assert (out / name).read_text().startswith("<svg")
    paid = len(model.requests)
    again, second = await measured(out, *words, shapes={"scripted/bird": shape})
    assert again.facts() == rates.facts()
    assert not second.requests
    more, third = await measured(out, *words, budgets=(10, 20, 40, 60, 80), shapes={"scripted/bird": shape})
    assert 0 < len(third.requests) <= 24 < paid, "one more budget for two compressors"
    assert len(more.curves[0].points) == 5


async def test_a_compressor_that_is_a_model_is_counted_with_its_misses(tmp_path: Path) -> None:
    model = Scripted(needs_the_fact, name="scripted/bird")
    way = Way("summarise", None)
    rates = await measure_rates(work(4), [way], model, (8, 40), out=tmp_path / "r", executor="plain")
    point = rates.curves[0].points[0]
    assert point.compressor_tokens is not None and point.tokens is not None
    assert point.compressor_tokens > 100, "it reads the whole text"
    assert point.tokens > point.compressor_tokens
    assert point.saved is not None and point.saved.mean is not None
    assert point.saved.mean < 0, "a negative saving is shown"
    assert point.flops is None, "the model's shape is unknown"
    assert rates.curves[0].fit is None
    assert "at least 4 are needed" in rates.curves[0].why


async def test_texts_shorter_than_the_budgets_have_no_curve_and_say_why() -> None:
    rates, _ = await measured(None, "truncate", budgets=(1000, 2000, 3000, 4000))
    assert rates.path is None
    assert rates.curves[0].fit is None
    assert "1 distinct rates" in rates.curves[0].why
    assert [p.score.mean for p in rates.curves[0].points] == [1.0] * 4


async def test_a_failed_episode_is_left_out_and_counted(tmp_path: Path) -> None:
    def script(request: ChatRequest) -> Any:
        if "asks 3?" in request.messages[-1].content:
            return BackendError("no such question", kind="refused")
        return needs_the_fact(request)

    rates = await measure_rates(
        work(6),
        ways_of(["truncate"]),
        Scripted(script, name="s"),
        BUDGETS,
        out=tmp_path / "r",
        executor="plain",
    )
    assert all(p.failed == 1 and p.scored == 5 for p in rates.points)
    assert rates.ends[0].score.mean == 1.0
    assert rates.failed == 6


async def test_a_limit_stops_all_runs_together_and_the_rest_is_not_begun(tmp_path: Path) -> None:
    from agentcomm.ledger.limits import Limits

    rates, model = await measured(tmp_path / "r", "truncate", limits=Limits(calls=20))
    assert rates.stopped is not None and "no context" in rates.stopped
    assert len(model.requests) <= 21
    assert rates.curves[0].points == ()
    assert rates.curves[0].fit is None


async def test_items_without_a_text_are_refused() -> None:
    bare = ac.Task("bare", [ac.Item("q", "Why?", "x")], lambda item, text: ac.Score(0.0))
    with pytest.raises(TaskError, match="no context to compress"):
        await measure_rates(bare, ways_of(["extract"]), "mock/echo", BUDGETS)


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ("extract", {"name": "extract", "budget": 9, "protect": []}),
        ("extract:query=false", {"name": "extract", "budget": 9, "protect": [], "query": False}),
        ("extract:protect=numbers", {"name": "extract", "budget": 9, "protect": ["numbers"]}),
        ("truncate:keep=both", {"name": "truncate", "tokens": 9, "keep": "both"}),
        ("rules", {"name": "rules", "budget": 9, "protect": []}),
        (
            "mock/echo",
            {"name": "summarise", "budget": 9, "protect": [], "model": "mock/echo", "query": True},
        ),
        (
            "summarise:model=mock/echo",
            {"name": "summarise", "budget": 9, "protect": [], "model": "mock/echo", "query": True},
        ),
    ],
)
def test_a_compressor_is_a_model_or_a_channel_at_any_budget(words: str, spec: dict[str, Any]) -> None:
    assert Way.parse(words).at(9).spec() == spec


def test_compressors_that_are_none_are_refused_before_anything_is_paid() -> None:
    for words, complaint in (
        ("nonsense", "extract, truncate, rules"),
        ("extract:budget=3", "leave the budget out"),
        ("extract:colour=red", "colour"),
        ("truncate:keep=middle", "keep"),
    ):
        with pytest.raises(UserError, match=complaint):
            Way.parse(words)
    with pytest.raises(UserError, match="named twice"):
        ways_of(["extract", "extract"])
    assert Way.parse("extract", query=False).at(9).spec()["query"] is False


def test_budgets_are_whole_numbers_of_at_least_1() -> None:
    assert budgets_of("64, 16,32") == (16, 32, 64)
    for words in ("", "0", "16,x", "-4", "16,16", "1.5"):
        with pytest.raises(ConfigError):
            budgets_of(words)
