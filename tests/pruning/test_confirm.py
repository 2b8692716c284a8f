"""Confirmation: what was learned is used only if it loses nothing that matters on items of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import numpy as np
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError, LimitExceeded, RunError, TaskError
from agentcomm.evaluation.splits import SplitGuard
from agentcomm.graph import Topology
from agentcomm.ledger.store import Ledger
from agentcomm.message import Usage
from agentcomm.options import RunOptions
from agentcomm.pruning.confirm import Confirmation, Evidence, Tries, claim_of, confirm, evidence, kept_whole
from agentcomm.pruning.environment import Metered, Outcome, Trial, run_trials
from agentcomm.pruning.fitting import Learned, fit, learn
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import Card, StaticPolicy, load
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.pruning.records import Collector, Origin, Records, read_records
from agentcomm.pruning.runner import whole_team
from agentcomm.task import Item
from tests.pruning.test_runner import PLAIN, TEAM, adding, sums
from tests.pruning.tiny import Tiny
from tests.pruning.toys import Toy, toy_items, toy_pool

FEW = TEAM.topology(without_agents=["bob"])


@dataclass(frozen=True)
class Cut:
    """Tries the team without bob and the whole one on as many items as it may, and cuts bob."""

    name: ClassVar[str] = "cut"

    topology: Topology = field(default=FEW, metadata={})

    async def fit(self, items: Any, environment: Any, budget: Any) -> StaticPolicy:
        assert isinstance(environment, Metered)
        left = environment.rollouts_left or 0
        both = [Trial(i, t, 0) for i in items for t in (self.topology, whole_team(environment.pool))]
        await run_trials(environment, both[:left])
        pool = environment.pool
        return StaticPolicy(pool, Card("cut"), EdgeProbabilities.of_topology(pool, self.topology))


def validate(n: int = 10, split: Any = "validate") -> list[Item]:
    return [
        Item(f"q{i}", f"What is {i + 100} plus {i + 100}?", str(2 * i + 200), metadata={"split": split})
        for i in range(n)
    ]


def needs_bob(when: Callable[[int], bool] = lambda number: True) -> Scripted:
    """A team whose judge is right about the items of ``when`` only where it hears bob."""

    def answer(request: ChatRequest) -> str:
        text = "\n".join(m.content for m in request.messages)
        number = int(adding(request)) // 2
        if "Decide." in text and "From bob" not in text and when(number):
            return "no idea"
        return str(2 * number)

    return Scripted(answer)


def learned(folder: Path | None, model: Any, **more: Any) -> Learned:
    more = {"options": PLAIN, "validate": validate(), "rollouts": 14, "method": Cut(), **more}
    method, task = more.pop("method"), more.pop("task", None)
    return anyio.run(lambda: learn(TEAM, task or sums(8), method, model=model, out=folder, **more))


def paid(folder: Path) -> tuple[int, int]:
    """Tokens in the ledger, and how many turns were paid more than once."""
    with Ledger.open(folder / "learning" / "ledger.sqlite", read_only=True) as ledger:
        rows = [r for r in ledger.calls(texts=False) if not r.cache_hit and r.error_kind is None]
        assert set(ledger.usage().by_phase()) == {"learn"}
    turns = [(r.item, r.sample, r.agent, r.round) for r in rows]
    return sum((r.input_tokens or 0) + (r.output_tokens or 0) for r in rows), len(turns) - len(set(turns))


# ------------------------------------------------------------------------------ a real team


def test_a_policy_that_loses_is_not_adopted_and_the_card_says_what_it_was(tmp_path: Path) -> None:
    got = learned(tmp_path / "p", needs_bob(lambda n: n >= 100))  # on items that it hasn't seen
    assert not got.adopted and got.confirmation is not None
    assert got.confirmation.difference.mean == -1.0 and got.confirmation.verdict.verdict == "no"
    for policy in (got.policy, load(tmp_path / "p", TEAM)):
        assert {policy(item) for item in (*sums(3).items, *validate())} == {TEAM.topology()}
        said = "\n".join(policy.card.notes)
        assert "not adopted, the whole team is kept: on 10 validate items" in said
        assert "-100.0 points" in said and "worse by more than 2 points (95% confident)" in said
        assert policy.card.method == "cut" and policy.card.trace["confirmation"]["adopted"] is False
    assert load(tmp_path / "p" / "refused", TEAM)(validate()[0]) == FEW
    assert got.savings is not None and {a.name: a.kept for a in got.savings.agents} == {"ann": 1, "bob": 0}


def test_one_that_keeps_the_score_is_adopted_and_that_few_items_show_little_is_said(tmp_path: Path) -> None:
    got = learned(tmp_path / "p", Scripted(adding))
    assert got.adopted and got.policy(validate()[0]) == FEW
    said = "\n".join(got.policy.card.notes)
    assert "adopted, but nothing is shown: on 10 validate items" in said
    assert "can't be said from 10 items (about 1" in said
    assert "tokens with the whole team and" in said
    assert not (tmp_path / "p" / "refused").exists()


def test_what_confirming_takes_is_announced_counted_and_beyond_the_rollouts(tmp_path: Path) -> None:
    told: list[str] = []
    options = RunOptions(executor="plain", retry=PLAIN.retry, note=told.append)
    got = learned(tmp_path / "p", Scripted(adding), options=options)
    spent = got.policy.card.spent
    assert spent["rollouts"] == 14 and spent["confirm_rollouts"] == 20
    ledger, twice = paid(tmp_path / "p")
    assert spent["tokens"] == ledger and not twice
    assert got.savings is not None and got.savings.learning == ledger
    without = learned(tmp_path / "q", Scripted(adding), confirm=0).policy.card.spent
    assert spent["confirm_tokens"] == ledger - (without["tokens"] or 0) > 0
    (announced,) = [t for t in told if "confirmed on 10 validate items" in t]
    assert "up to 20 rollouts" in announced and "tokens more" in announced


def test_what_was_cut_off_while_confirming_goes_on_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    class Stopped(BaseException):
        """Ends the process, as Ctrl-C does."""

    def stopping(request: ChatRequest) -> str:
        if "What is 105 " in "\n".join(m.content for m in request.messages):
            raise Stopped
        return adding(request)

    with pytest.raises((Stopped, BaseExceptionGroup)):
        learned(tmp_path / "p", Scripted(stopping, max_concurrency=1))
    assert not (tmp_path / "p" / "policy.json").exists()
    before, _ = paid(tmp_path / "p")
    kept = read_records(tmp_path / "p" / "learning" / "confirmed.jsonl")
    assert {r.split for r in kept} == {"validate"} and len(kept) == 10
    model = Scripted(adding)
    second = learned(tmp_path / "p", model)
    asked = "\n".join(m.content for r in model.requests for m in r.messages)
    assert "What is 104 " not in asked and "What is 105 " in asked
    now, twice = paid(tmp_path / "p")
    assert not twice and now > before and second.policy.card.spent["tokens"] == now
    straight = learned(tmp_path / "q", Scripted(adding))
    assert straight.confirmation == second.confirmation
    assert straight.policy.card.spent["tokens"] == now
    # And once more, with nothing left to pay.
    silent = Scripted(adding)
    again = learned(tmp_path / "p", silent)
    assert silent.requests == [] and again.confirmation == second.confirmation
    assert again.policy.card.notes == second.policy.card.notes


def test_tokens_that_run_out_while_confirming_are_told_and_more_go_on(tmp_path: Path) -> None:
    enough = learned(tmp_path / "a", Scripted(adding), confirm=0).policy.card.spent["tokens"]
    model = Scripted(adding, max_concurrency=1)
    with pytest.raises(LimitExceeded, match="while confirming what was learned: .*confirm 0"):
        learned(tmp_path / "p", model, tokens=int(enough or 0) + 100)
    assert not (tmp_path / "p" / "policy.json").exists()
    got = learned(tmp_path / "p", model)
    assert len(model.requests) == got.policy.card.spent["calls"]


def test_tokens_alone_plan_rollouts_and_what_confirms_them(tmp_path: Path) -> None:
    got = learned(tmp_path / "p", Scripted(adding), rollouts=None, tokens=3000, method=Tiny())
    spent = got.policy.card.spent
    assert (spent["tokens"] or 0) <= 3000
    assert 0 < (spent["confirm_rollouts"] or 0) <= (spent["rollouts"] or 0)
    least = learned(tmp_path / "q", Scripted(adding), rollouts=None, tokens=650, method=Tiny())
    assert least.confirmation is None
    assert "not confirmed: the tokens that may be spent leave none for it" in least.policy.card.notes


def test_a_failed_episode_is_no_wrong_answer_and_is_tried_again(tmp_path: Path) -> None:
    def breaking(request: ChatRequest) -> str | Exception:
        text = "\n".join(m.content for m in request.messages)
        lost = (
            "Decide." in text
            and "From bob" not in text
            and ("What is 101 " in text or "What is 102 " in text)
        )
        return BackendError("it broke", kind="server", fatal=False) if lost else adding(request)

    got = learned(tmp_path / "p", Scripted(breaking))
    c = got.confirmation
    assert c is not None and (c.failed, c.difference.items, c.difference.mean) == (2, 8, 0.0) and c.adopted
    assert any("2 pairs with a failure left out" in n and "it broke" in n for n in got.policy.card.notes)
    healed = learned(tmp_path / "p", Scripted(adding)).confirmation
    assert healed is not None and (healed.failed, healed.difference.items) == (0, 10)


# ------------------------------------------------------------------------- whose items they are


def test_only_validate_items_confirm_and_what_was_learned_from_does_not(tmp_path: Path) -> None:
    model = Scripted(adding)
    for split in ("score", "learn"):
        with pytest.raises(TaskError, match=f"split '{split}'; a policy is confirmed on split 'validate'"):
            learned(tmp_path / split, model, validate=validate(3, split))
    assert model.requests == []
    # The same questions, and one that says nothing new twice.
    same = [Item(f"v{i.id}", i.question, i.answer, metadata={"split": "validate"}) for i in sums(8).items]
    got = learned(tmp_path / "p", model, validate=[*same, *validate(2), *validate(2)])
    assert got.confirmation is not None and got.confirmation.asked == 2
    assert {r.split for r in read_records(tmp_path / "p" / "learning" / "records.jsonl")} == {"learn"}
    none = learned(tmp_path / "q", model, validate=same)
    assert none.confirmation is None
    assert "not confirmed: every validate item is also one that it has learned from" in none.policy.card.notes


def test_records_of_confirming_are_never_learned_from(tmp_path: Path) -> None:
    learned(tmp_path / "p", Scripted(adding))
    kept = read_records(tmp_path / "p" / "learning" / "confirmed.jsonl")
    with pytest.raises(TaskError, match="learn from split 'learn' only"):
        learned(None, Scripted(adding), method="frugal", settings={"records": kept}, confirm=0)


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"validate": []}, "not confirmed: there are no validate items"),
        ({"confirm": 0}, "not confirmed: nobody asked"),
        ({"method": "none"}, None),  # nothing was learned
        ({"method": "none", "confirm": 3}, "confirmed: what was learned keeps the whole team on all 3 validate items"),
        ({"confirm": 30}, "30 validate items were asked for, 10 are there"),
    ],
)  # fmt: skip
def test_what_is_not_confirmed_says_so(more: dict[str, Any], note: str | None) -> None:
    got = learned(None, Scripted(adding), **more)
    said = [n for n in got.policy.card.notes if "confirmed" in n or "asked for" in n]
    assert any(note in n for n in said) if note else not said
    assert got.adopted


@pytest.mark.parametrize(
    ("more", "said"),
    [({"confirm": -1}, "confirm=-1"), ({"margin": 0}, "margin=0"), ({"margin": 2}, "margin=2")],
)
def test_what_can_not_be_meant_is_refused_before_anything_is_paid(more: dict[str, Any], said: str) -> None:
    model = Scripted(adding)
    with pytest.raises(ConfigError, match=said):
        learned(None, model, **more)
    assert model.requests == []


# ------------------------------------------------------------------------------- the rule


def judged(items: int, lost: int, won: int = 0, margin: float = 0.02) -> Confirmation:
    """A pair of teams that differ on ``lost`` and ``won`` items and are both right half the time elsewhere."""
    pool = toy_pool(3, "graph")
    policy = StaticPolicy(pool, Card("cut"), EdgeProbabilities.of_topology(pool, few(pool)))

    def worth(item: Item, arrays: Any) -> float:
        k, whole = item.metadata["k"], bool(arrays.keep.all())
        return float(whole if k < lost else not whole if k < lost + won else k % 2)

    toy = Toy(pool, worth)
    return anyio.run(confirm, toy, policy, whole_team(pool), toy_items(items, "validate"), margin)


def few(pool: Pool) -> Topology:
    n = len(pool)
    return pool.topology(np.array([True] + [False] * (n - 1)), np.zeros((n, n), np.bool_))


@pytest.mark.parametrize(
    ("items", "lost", "won", "margin", "adopted", "verdict"),
    [
        (200, 0, 0, 0.02, True, "yes"),
        (50, 0, 0, 0.02, True, "not enough items"),
        (50, 1, 0, 0.02, True, "not enough items"),  # exactly what may be lost
        (50, 2, 0, 0.02, False, "not enough items"),
        (50, 8, 2, 0.02, False, "not enough items"),
        (50, 12, 0, 0.02, False, "no"),
        (50, 5, 5, 0.02, True, "not enough items"),
        (100, 8, 0, 0.1, False, "not enough items"),  # surely a loss, and perhaps of more than allowed
        (1000, 50, 0, 0.1, True, "yes"),  # surely a loss, and as surely of less than allowed
    ],
)
def test_the_rule_and_the_verdict_beside_it(
    items: int, lost: int, won: int, margin: float, adopted: bool, verdict: str
) -> None:
    found = judged(items, lost, won, margin)
    assert (found.adopted, found.verdict.verdict) == (adopted, verdict)
    assert found.difference.mean == pytest.approx((won - lost) / items)
    first = found.sentences()[0]
    assert first.startswith("not adopted") is not adopted
    assert ("surely a loss" in first) == (not adopted and not found.lost)
    assert ("can't be said" in first) == (verdict == "not enough items")


def test_both_teams_get_the_same_seeds_and_equal_teams_are_run_once() -> None:
    pool = toy_pool(3, "graph")
    whole = whole_team(pool)

    class Mixed(StaticPolicy):
        kind = ""  # not among those that files name

        def __call__(self, item: Item) -> Topology:
            return few(pool) if item.metadata["k"] % 2 else whole

    policy = Mixed(pool, Card("mixed"), EdgeProbabilities.of_topology(pool, whole))
    toy = Toy(pool, lambda item, arrays: 1.0)
    found = anyio.run(confirm, toy, policy, whole, toy_items(6, "validate"))
    assert (found.same, found.rollouts, len(toy.seen), found.difference.items) == (3, 9, 9, 6)
    assert {seed for _, _, seed in toy.seen} == {0}
    alike = StaticPolicy(pool, Card("whole"), EdgeProbabilities.of_topology(pool, whole))
    toy = Toy(pool, lambda item, arrays: 1.0)
    found = anyio.run(confirm, toy, alike, whole, toy_items(6, "validate"))
    assert found.adopted and found.rollouts == 0 and toy.seen == []


def test_where_every_pair_failed_nothing_is_decided() -> None:
    pool = toy_pool(3, "graph")
    policy = StaticPolicy(pool, Card("cut"), EdgeProbabilities.of_topology(pool, few(pool)))
    toy = Toy(pool, lambda item, arrays: 1.0 if arrays.keep.all() else None)
    with pytest.raises(RunError, match="each of 4 validate items a rollout failed"):
        anyio.run(confirm, toy, policy, whole_team(pool), toy_items(4, "validate"))


@pytest.mark.parametrize("edges", ["graph", "complete"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_the_whole_team_in_its_place_is_the_whole_team(edges: Any, rounds: int, tmp_path: Path) -> None:
    pool = toy_pool(4, edges, rounds)
    whole = whole_team(pool)
    policy = StaticPolicy(pool, Card("cut", notes=("a",)), EdgeProbabilities.of_topology(pool, few(pool)))
    kept = kept_whole(policy, whole)
    for r in range(1, rounds + 1):
        assert kept(toy_items(1)[0]).mask(r) == whole.mask(r)
    assert kept.card == policy.card


# ------------------------------------------------------------------------------- elsewhere


def test_a_planted_world_confirms_too_beyond_the_rollouts_and_nothing_is_recorded_to_learn_from(
    tmp_path: Path,
) -> None:
    world = PlantedWorld(1, agents=5, domains=1)
    task, other = world.task(20), world.items(30, "validate")
    graph = world.pool.graph

    def tried(topology: Topology) -> Learned:
        method = Cut(topology)
        return anyio.run(lambda: learn(graph, task, method, environment=world, rollouts=40, validate=other))

    alone, best = tried(few(world.pool)), tried(world.oracle(0))
    spent = alone.policy.card.spent
    assert spent["rollouts"] == 40 and spent["confirm_rollouts"] == 60
    assert alone.confirmation is not None and not alone.adopted
    assert alone.policy(other[0]) == whole_team(world.pool)
    assert best.adopted and best.policy(other[0]) == world.oracle(0)
    with Records(tmp_path / "r.jsonl") as records:
        collector = Collector(
            world, records, SplitGuard.of(task.items), Origin("r", "cut", "planted", "none")
        )
        policy = fit(
            world.pool.graph, task, Cut(few(world.pool)), environment=collector, rollouts=40, validate=other
        )
        assert {r.split for r in records} == {"learn"} and policy.card.spent["confirm_rollouts"] == 60


# -------------------------------------------------------------------------------- evidence


def test_the_card_says_how_often_the_chosen_team_was_tried_and_what_its_gain_is_made_of(
    tmp_path: Path,
) -> None:
    got = learned(tmp_path / "p", needs_bob(lambda n: n % 2 == 0), confirm=0, price=0.5)
    seen, savings = got.evidence, got.savings
    assert seen is not None and savings is not None and savings.before and savings.after
    # Of 14 rollouts 2 measure the whole team and 2 the policy; what measures it comes after the choice.
    assert (seen.chosen, seen.whole) == (Tries(5, 0.4, True), Tries(7, 1.0, True))
    assert seen.score == -0.5  # items 0 and 1
    assert seen.tokens == pytest.approx(0.5 * (savings.before - savings.after) / savings.before)
    said = "\n".join(got.policy.card.notes)
    assert (
        "what was chosen had itself been tried 5 times, 2 right; the whole team was tried 7 times, 7 right"
        in said
    )
    assert f"a gain of {seen.tokens - 0.5:+.2f} on 2 learn items: {seen.tokens:+.2f} are saved tokens at a price of 0.5, -0.50 is score" in said  # fmt: skip
    again = learned(tmp_path / "p", Scripted(adding), confirm=0, price=0.5)
    assert again.evidence == seen  # what was measured later is no evidence of the choice


def test_a_method_that_claims_a_gain_is_told_how_much_of_it_is_tokens() -> None:
    policy: Any = SimpleNamespace(
        card=Card("frugal", trace={"gain": [0.1, 0.3], "gain_sd": [0.02, 0.06]}),
        kind_of=lambda item: item.metadata["k"] % 2,
    )
    claim, sd = claim_of(policy, toy_items(4))
    assert (claim, sd) == (pytest.approx(0.2), pytest.approx(0.04))
    seen = Evidence(Tries(0, None, True), Tries(3, 0.5, False), 0.2, 4, -0.2, 0.16, claim, sd)
    assert seen.sentences() == [
        "what was chosen had itself never been tried; the whole team was tried 3 times, score 0.50",
        "the method expects a gain of +0.20 +- 0.04: +0.16 are saved tokens at a price of 0.2, +0.04 is score",
    ]


def test_frugal_claims_are_found() -> None:
    policy = learned(None, Scripted(adding), method="frugal", rollouts=30, confirm=0).policy
    claim, sd = claim_of(policy, sums(8).items)
    assert claim is not None and sd is not None and sd > 0


def test_failed_rollouts_and_other_teams_are_no_evidence() -> None:
    pool = toy_pool(3, "graph")
    whole = whole_team(pool)
    policy = StaticPolicy(pool, Card("cut"), EdgeProbabilities.of_topology(pool, few(pool)))
    good = Outcome(1.0, 0.9, Usage(10, 1))
    failed = Outcome(None, None, Usage(10, 1), status="failed", failure="x")
    (a, b) = toy_items(2)
    other = pool.topology(np.array([False, True, False]), np.zeros((3, 3), np.bool_))
    seen = evidence(
        policy, whole, [(a, few(pool), good), (b, few(pool), failed), (b, other, good), (b, whole, failed)]
    )
    assert seen is not None and (seen.chosen.count, seen.whole.count) == (1, 0)
    assert evidence(kept_whole(policy, whole), whole, [(a, whole, good)]) is None
