"""Values through the whole runner: what is run, paid, resumed, compared and said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError, GraphError
from agentcomm.evaluation.effects import Effect
from agentcomm.evaluation.report import write_report
from agentcomm.evaluation.run import evaluate
from agentcomm.evaluation.value import RandomTeams, value
from agentcomm.evaluation.worth import Value, Worth, next_cut, order, verdict_of
from agentcomm.graph import Agent, AgentGraph, Edge
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger
from agentcomm.task import Item, Score, Task
from tests.evaluation.planted_team import WORLD, names, team, varied
from tests.reports import Opened

pytestmark = pytest.mark.anyio

CHAIN = AgentGraph(
    [Agent("a", "Ask."), Agent("b", "Answer."), Agent("c", "Check."), Agent("judge", "Judge.")],
    [Edge("a", "b"), Edge("b", "judge"), Edge("c", "judge"), Edge("a", "c")],
    "judge",
)


def task(count: int = 6, **metadata: Any) -> Task:
    items = [Item(f"q{i}", f"Question number {i}?", str(i), metadata=metadata) for i in range(count)]
    return Task("numbers", items, lambda item, text: Score(float("right" in text)))


def speaking(judge: Callable[[str], str], **more: Any) -> Scripted:
    """A model whose judge says ``judge(prompt)``; the others say who they are."""

    def answer(request: ChatRequest) -> str:
        prompt = request.messages[-1].content
        if "Judge." in prompt:
            return judge(prompt)
        return next(
            said
            for role, said in (("Ask.", "asked"), ("Answer.", "answered"), ("Check.", "checked"))
            if role in prompt
        )

    return Scripted(answer, **more)


def needs_b(prompt: str) -> str:
    return "right" if "answered" in prompt else "wrong"


async def find(model: Any, graph: AgentGraph = CHAIN, work: Task | None = None, **more: Any) -> Value:
    return await value(graph, work or task(), model, executor="plain", **more)


# -- what is measured


async def test_each_part_is_worth_the_score_that_is_lost_without_it() -> None:
    found = (await find(speaking(needs_b), work=task(12))).by_name()
    worth = {name: row.effect.mean for name, row in found.items()}
    assert worth == {
        "a": 0,
        "b": 1,
        "c": 0,
        "judge": None,
        "a->b": 0,
        "b->judge": 1,
        "c->judge": 0,
        "a->c": 0,
    }
    assert found["b"].verdict == "worth it" and found["b"].p_holm is not None and found["b"].p_holm < 0.05
    assert found["a->c"].words.startswith("not enough items: about ")
    assert found["judge"].words == "can't be left out: it gives the answer"


async def test_a_planted_teams_values_lie_where_the_truth_is_and_its_misleader_harms() -> None:
    solver, misleader = names()
    graph = team()
    work = WORLD.task(60, "validate")
    found = await find(WORLD.model(), graph, work, seed=1)
    truth = WORLD.chance(WORLD.reading(0, graph.topology()))
    rows = found.by_name()
    for part in varied(graph):
        assert part.left is not None
        lost = truth - WORLD.chance(WORLD.reading(0, part.left))
        effect = rows[part.name].effect
        assert effect.low is not None and effect.high is not None and effect.mean is not None
        assert effect.low - 0.05 <= lost <= effect.high + 0.05, part.name
    assert rows[f"{misleader}->{solver}"].effect.mean < 0  # type: ignore[operator]
    assert rows[misleader].verdict == "harms" and rows[f"{solver}->judge"].verdict == "worth it"
    assert found.rows[0].name in (misleader, f"{misleader}->{solver}")
    assert found.next is not None and found.next.why == "it harms" and misleader in found.next.words[0]
    # What it would save is what the world says.
    reading = WORLD.reading(0, graph.topology(without_agents=[misleader]))
    assert rows[misleader].saved == WORLD.reading(0, graph.topology()).tokens - reading.tokens


async def test_only_what_lies_downstream_of_a_missing_part_is_asked_again(tmp_path: Path) -> None:
    model = speaking(needs_b)
    found = await find(model, only=["c->judge", "a->b"], out=tmp_path / "v")
    # Without c->judge c goes too and the judge reads less; without a->b only b does, which then says the same.
    whole, judge_again, b_again = 6 * 4, 6, 6
    assert len(model.requests) == whole + judge_again + b_again
    assert found.paid.runs == 3 and found.paid.episodes == 18 and found.paid.replayed > 0
    assert {r.name for r in found.rows} == {"c->judge", "a->b"}


async def test_tokens_are_the_ledgers_and_saved_counts_what_changes_downstream(tmp_path: Path) -> None:
    model = speaking(lambda prompt: "right" if "checked" in prompt else "a long and winding answer")
    rows = (await find(model, out=tmp_path / "v")).by_name()
    with Ledger.open(tmp_path / "v" / "whole" / "ledger.sqlite") as ledger:
        usage = ledger.usage()
    for edge, tokens in usage.by_edge().items():
        assert rows[edge].tokens == pytest.approx(tokens / 6)
    for agent, group in usage.by_agent().items():
        assert rows[agent].tokens == pytest.approx((group.input + group.output) / 6)
    # Without c the judge talks longer: less is saved than c and its message cost.
    c = rows["c"]
    assert c.saved is not None and c.tokens is not None and rows["c->judge"].tokens is not None
    assert c.saved == c.tokens + rows["c->judge"].tokens - 4  # "right" against five words


async def test_parts_whose_loss_leaves_the_same_team_are_run_and_tested_once() -> None:
    model = speaking(needs_b)
    found = await find(model, only=["c", "c->judge"])
    assert found.paid.runs == 2
    c, edge = found.by_name()["c"], found.by_name()["c->judge"]
    assert c.effect == edge.effect and edge.gone == ("c",) and c.p_holm == edge.p_holm == c.effect.p_value


async def test_several_samples_of_an_item_count_as_one_item() -> None:
    found = await find(speaking(needs_b), only=["b"], samples=3, temperature=1.0)
    assert found.by_name()["b"].effect.items == 6 and found.paid.episodes == 36


async def test_rounds_and_self_edges_are_left_out_over_all_rounds() -> None:
    graph = AgentGraph(
        [Agent("a", "Ask."), Agent("b", "Answer.", memory=False), Agent("judge", "Judge.")],
        [Edge("a", "judge"), Edge("b", "judge"), Edge("b", "a", "temporal"), Edge("b", "b", "temporal")],
        "judge",
        rounds=3,
    )
    model = speaking(lambda prompt: "right")
    found = (await find(model, graph, task(3))).by_name()
    assert {n for n, r in found.items() if r.effect.mean is not None} == {
        "a", "b", "a->judge", "b->judge", "b->a", "b->b",
    }  # fmt: skip
    # b reads itself in two of three rounds; its message is five tokens ("From b:" and a word) each.
    assert found["b->b"].tokens == found["b->b"].saved
    assert found["b->b"].tokens is not None and found["b->b"].tokens > 0


async def test_one_edge_is_enough_for_a_value() -> None:
    graph = AgentGraph([Agent("b", "Answer."), Agent("judge", "Judge.")], [Edge("b", "judge")], "judge")
    for method in ("ablation", "regression"):
        found = await find(speaking(needs_b), graph, task(20), method=method)
        rows = found.by_name()
        assert rows["b"].words == "can't be left out: nobody else reaches judge"
        assert (
            rows["b->judge"].effect.mean == pytest.approx(1, abs=0.1)
            and rows["b->judge"].verdict == "worth it"
        )
        assert rows["b->judge"].note == "judge then answers alone"
        assert found.next is None


async def test_failed_episodes_are_counted_and_are_no_wrong_answers() -> None:
    def judge(prompt: str) -> str:
        if "number 0?" in prompt:
            raise BackendError("no", kind="refused")
        if "checked" not in prompt and "number 1?" in prompt:
            raise BackendError("no", kind="refused")
        return "right"

    found = await find(speaking(judge), only=["c", "b"])
    assert found.failed == 1 and found.score.mean == 1.0
    rows = found.by_name()
    assert (rows["c"].left_out, rows["c"].effect.items, rows["c"].effect.mean) == (2, 4, 0.0)
    assert (rows["b"].left_out, rows["b"].effect.items) == (1, 5)


async def test_a_part_without_which_every_episode_fails_is_not_measured() -> None:
    def judge(prompt: str) -> str:
        if "checked" not in prompt:
            raise BackendError("no", kind="refused")
        return "right"

    row = (await find(speaking(judge), only=["c"])).by_name()["c"]
    assert row.verdict == "not measured" and row.effect.mean is None and row.left_out == 6


async def test_tokens_that_no_server_told_are_unknown() -> None:
    found = await find(speaking(needs_b, report_usage=False), only=["b", "b->judge"])
    assert found.tokens is None
    for row in found.rows:
        assert row.tokens is None and row.saved is None and row.per_1000 is None
        assert row.effect.mean == 1


# -- going on, limits, files


async def test_the_same_call_again_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    first = await find(speaking(needs_b), out=tmp_path / "v")
    silent = speaking(needs_b)
    again = await find(silent, out=tmp_path / "v")
    assert silent.requests == [] and again.rows == first.rows
    saved = json.loads((tmp_path / "v" / "ablation.json").read_text())
    assert saved == json.loads(json.dumps(again.to_dict()))
    # The other method finds the whole team there.
    model = speaking(needs_b)
    await find(model, out=tmp_path / "v", method="regression", samples=1)
    assert not any("Ask." in r.messages[-1].content for r in model.requests)
    assert (tmp_path / "v" / "regression.json").exists()


async def test_a_limit_holds_for_all_runs_together_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    model = speaking(needs_b)
    found = await find(model, out=tmp_path / "v", limits=Limits(calls=30))
    assert len(model.requests) == 30
    assert found.stopped is not None and found.paid.runs < 8
    assert any(r.verdict == "not measured" for r in found.rows)
    done = await find(model, out=tmp_path / "v")
    assert done.stopped is None
    other = speaking(needs_b)
    whole = await find(other)
    assert len(model.requests) == len(other.requests)  # nothing was paid for twice
    assert done.rows == whole.rows


async def test_the_report_of_the_whole_team_draws_what_its_edges_are_worth(tmp_path: Path) -> None:
    await find(speaking(needs_b), out=tmp_path / "v", work=task(12))
    write_report([tmp_path / "v" / "whole"], tmp_path / "r.html")
    facts = Opened(tmp_path / "r.html").facts["runs"][0]
    order_of = [a["name"] for a in facts["agents"]]
    worth = {f"{order_of[e['sender']]}->{order_of[e['reader']]}": e["worth"] for e in facts["edges"]}
    assert worth == {"a->b": 0, "b->judge": 1, "c->judge": 0, "a->c": 0}
    assert facts["worth_of"] == "score lost without it, the rest of the team unchanged"


async def test_what_can_go_further_is_measured_on_the_cut_team(tmp_path: Path) -> None:
    cut = CHAIN.topology(without_agents=["c"])
    found = await find(speaking(needs_b), topology=cut, out=tmp_path / "v")
    assert {r.name for r in found.rows} == {"a", "b", "judge", "a->b", "b->judge"}
    config = json.loads((tmp_path / "v" / "whole" / "config.json").read_text())
    assert "c" not in config["topology"]["masks"][0]["agents"]


@pytest.mark.parametrize(
    ("split", "phase"), [("learn", "learn"), ("validate", "evaluate"), (None, "evaluate")]
)
async def test_calls_on_learn_items_count_as_learning(tmp_path: Path, split: str | None, phase: str) -> None:
    work = task(3, **({"split": split} if split else {}))
    await find(speaking(needs_b), work=work, only=["b"], out=tmp_path / "v")
    with Ledger.open(tmp_path / "v" / "whole" / "ledger.sqlite") as ledger:
        assert set(ledger.usage().by_phase()) == {phase}


async def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = speaking(needs_b)
    with pytest.raises(
        GraphError, match="no agent or edge 'x->y' in the team; there are: a, b, c, judge, a->b"
    ):
        await find(model, only=["x->y"])
    with pytest.raises(GraphError, match="nothing can be left out.*judge: it gives the answer"):
        await find(model, only=["judge"])
    with pytest.raises(ConfigError, match="unknown method 'magic'"):
        await find(model, method="magic")
    with pytest.raises(ConfigError, match="keep=1"):
        await find(model, method="regression", keep=1)
    for wrong in ({"level": 2.0}, {"level": math.nan}, {"margin": 5.0}, {"margin": -1.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
            await find(model, **wrong)
    with pytest.raises(ConfigError, match="samples=0"):
        await find(model, samples=0)
    await evaluate(CHAIN, task(1), speaking(needs_b), out=tmp_path / "run", executor="plain")
    with pytest.raises(ConfigError, match="is a run; values are found in a directory of their own"):
        await find(model, out=tmp_path / "run")
    assert model.requests == []


async def test_an_edge_is_named_with_or_without_spaces() -> None:
    found = await find(speaking(needs_b), only=["b -> judge"])
    assert [r.name for r in found.rows] == ["b->judge"]


# -- random sub-teams


async def test_regression_finds_the_same_from_fewer_episodes() -> None:
    model = speaking(needs_b)
    found = await find(model, method="regression", work=task(60), samples=2)
    rows = found.by_name()
    assert found.paid.episodes == 180 and found.paid.runs == 3
    for name in ("b", "b->judge"):
        assert rows[name].effect.mean == pytest.approx(0.9, abs=0.3)
        assert rows[name].verdict == "worth it"
    for name in ("c", "a->c", "c->judge"):
        assert rows[name].effect.low < 0 < rows[name].effect.high  # type: ignore[operator]
    assert rows["judge"].verdict == "can't be left out"
    # An agent's loss saves at least its own tokens, up to what chance does.
    assert rows["c"].saved is not None and rows["c"].tokens is not None
    assert rows["c"].saved_low is not None and rows["c"].saved_low < rows["c"].tokens + 8


def test_random_teams_are_the_same_in_every_process_and_keep_parts_as_often_as_asked() -> None:
    found = varied(CHAIN)
    whole = CHAIN.topology()
    teams = RandomTeams(CHAIN, whole, found, 0.8, seed=3, draw=0)
    items = task(2000).items
    kept = np.array([teams.kept(item) for item in items])
    assert np.abs(kept.mean(axis=0) - 0.8).max() < 0.04
    assert teams.kept(items[0]) == RandomTeams(CHAIN, whole, found, 0.8, 3, 0).kept(items[0])
    assert (kept != [RandomTeams(CHAIN, whole, found, 0.8, 3, 1).kept(i) for i in items]).any()
    for item, row in zip(items[:50], kept[:50], strict=True):
        (mask,) = teams(item).masks
        for part, stays in zip(found, row, strict=True):
            if not stays and part.kind == "agent":
                assert part.name not in mask.agents
            if not stays and part.kind == "edge":
                assert part.ends not in {(e.sender, e.reader) for e in mask.edges}


async def test_a_function_that_decides_always_has_something_to_read() -> None:
    async def first(turn: Any) -> str:
        return str(turn.inbox[0].text)

    graph = AgentGraph(
        [Agent("a", "Ask."), Agent("b", "Answer."), Agent("vote", act=first)],
        [Edge("a", "vote"), Edge("b", "vote")],
        "vote",
    )
    found = await find(speaking(needs_b), graph, task(40), method="regression", keep=0.3)
    assert found.failed == 0 and all(r.left_out == 0 for r in found.rows)


# -- what is said


def effect(
    mean: float, half: float, *, items: int = 100, needed: int = 500, upper: float | None = None
) -> Effect:
    top = mean + half if upper is None else upper
    return Effect(mean, mean - half, mean + half, top, 0.01, items, 0.95, needed, 0.4)


@pytest.mark.parametrize(
    ("found", "p", "verdict"),
    [
        (effect(0.2, 0.1), 0.01, "worth it"),
        (effect(-0.2, 0.1), 0.01, "harms"),
        (effect(0.2, 0.1), 0.2, "not enough items"),  # many parts were tested
        (effect(0.2, 0.3), 0.01, "not enough items"),
        (effect(0.0, 0.015), 1.0, "no difference found"),
        (effect(-0.1, 0.11, upper=0.0), 0.3, "no difference found"),  # it may harm, but surely doesn't help
        (effect(0.0, 0.05), 1.0, "not enough items"),
        (Effect(), None, "not measured"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_corrected_p(
    found: Effect, p: float | None, verdict: str
) -> None:
    assert verdict_of(found, p, 0.02)[0] == verdict


def test_the_items_needed_show_what_was_seen_or_that_nothing_is_there() -> None:
    # (1.96 + 0.84)^2 * 0.16 / 0.04 = 31.4, but there are 100 already
    assert verdict_of(effect(0.2, 0.3), 0.2, 0.02)[1] == 101
    assert verdict_of(effect(0.2, 0.3, items=10), 0.2, 0.02)[1] == 32
    assert verdict_of(effect(0.2, 0.3, items=10), 0.2, 0.02, tests=20)[1] > 50  # type: ignore[operator]
    assert verdict_of(effect(0.01, 0.3), 1.0, 0.02)[1] == 500


def row(name: str, mean: float | None, saved: float | None, verdict: Any = "not enough items") -> Worth:
    found = Effect() if mean is None else effect(mean, 0.1)
    return Worth("agent", name, found, 0.5, verdict, 1234, 10, saved, None, None, 0, (), (name,), "")


def test_rows_go_from_what_to_cut_to_what_to_keep() -> None:
    rows = [
        row("keeps", 0.3, 100),
        row("free", 0.1, 0),
        row("unknown", None, None, "not measured"),
        row("cheap", 0.1, 10),
        row("idle", 0.0, 50),
        row("bad", -0.2, 10),
        row("worse", -0.3, 10),
        row("dear", 0.1, 1000),
    ]
    assert [r.name for r in sorted(rows, key=order)] == [
        "worse", "bad", "idle", "dear", "keeps", "cheap", "free", "unknown",
    ]  # fmt: skip
    assert rows[0].per_1000 == 3.0 and rows[1].per_1000 is None


def test_the_next_cut_is_what_harms_then_what_saves_most_then_a_guess() -> None:
    keeps = row("keeps", 0.3, 900, "worth it")
    guess, small = row("guess", 0.01, 500), row("small", -0.01, 90)
    nothing, more = (
        row("nothing", 0.0, 50, "no difference found"),
        row("more", 0.0, 60, "no difference found"),
    )
    harms = row("harms", -0.3, 5, "harms")
    for found, name in (
        ([keeps, guess, small, nothing, more, harms], "harms"),
        ([keeps, guess, small, nothing, more], "more"),
        ([keeps, guess, small], "guess"),
    ):
        chosen = next_cut(found, 1000, 0.02)
        assert chosen is not None and chosen.words == (name,)
    assert next_cut([keeps], 1000, 0.02) is None
    chosen = next_cut([guess], 1000, 0.02)
    assert chosen is not None and chosen.share == 0.5 and chosen.why.startswith("a guess")


def test_about_so_many_is_two_digits() -> None:
    assert row("x", 0.1, 1).words == "not enough items: about 1,300 needed"
