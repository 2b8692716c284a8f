"""A real team as an environment: what was paid is paid once, told apart from what is learned, and kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.calls import Retry
from agentcomm.errors import BackendError, ConfigError, LimitExceeded, RunError, TaskError
from agentcomm.evaluation.run import evaluate
from agentcomm.evaluation.splits import Split
from agentcomm.graph import Agent, AgentGraph, Edge, Topology
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.store import Ledger
from agentcomm.options import RunOptions
from agentcomm.pruning.environment import Budget, Metered, Trial, run_trials
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities, realise
from agentcomm.pruning.records import read_records
from agentcomm.pruning.runner import LearnProgress, RealEnvironment, whole_team
from agentcomm.task import Item, Score, Task
from tests.command import wait_until
from tests.watching import Watching

pytestmark = pytest.mark.anyio

WORLD = PlantedWorld(3, agents=5, domains=1)
PLAIN = RunOptions(executor="plain", retry=Retry(attempts=2, scale=0.0))
TEAM = AgentGraph(
    [Agent("ann", role="Be bold."), Agent("bob", role="Be brief."), Agent("judge", role="Decide.")],
    [Edge("ann", "bob"), Edge("ann", "judge"), Edge("bob", "judge")],
    "judge",
)


def sums(n: int = 6, split: Split = "learn") -> Task:
    items = [Item(f"q{i}", f"What is {i} plus {i}?", str(2 * i), metadata={"split": split}) for i in range(n)]
    return Task("sums", items, lambda item, text: Score(float(text.strip() == item.answer)))


def adding(request: ChatRequest) -> str:
    asked = next(m.content for m in request.messages if "What is " in m.content)
    return str(2 * int(asked.split("What is ")[1].split()[0]))


def real(
    folder: Path,
    graph: AgentGraph = TEAM,
    task: Task | None = None,
    model: Any = None,
    **more: Any,
) -> RealEnvironment:
    task = task or sums()
    more.setdefault("options", PLAIN)
    return RealEnvironment(Pool(graph), task, task.items, model or Scripted(adding), folder, **more)


def drawn(pool: Pool, n: int, seed: int = 0) -> list[Topology]:
    rng = np.random.default_rng(seed)
    even = EdgeProbabilities.constant(len(pool), 0.7, 0.5)
    return [realise(even, pool, mode="bernoulli", rng=rng).topology for _ in range(n)]


async def test_a_rollout_is_worth_what_an_evaluation_of_the_same_topology_says(tmp_path: Path) -> None:
    task, model = WORLD.task(5), WORLD.model()
    topology = WORLD.oracle(0)
    environment = RealEnvironment(
        WORLD.pool, task, task.items, model, tmp_path / "l", price=0.2, options=PLAIN
    )
    async with environment:
        reference = await environment.measure(5)
        # T_ref by formula is without the facts that messages carry.
        assert WORLD.reference < reference.tokens < 1.3 * WORLD.reference
        outcomes = await environment.run_all(task.items, lambda item: topology)
    score = {i: o.correct for i, o in zip((i.id for i in task.items), outcomes, strict=True)}

    class Fixed:
        def __call__(self, item: Item) -> Topology:
            return topology

        def schedule(self, topology: Topology) -> Any:
            return WORLD.pool.schedule(topology)

    run = await evaluate(WORLD.pool.graph, task, model, topology=Fixed(), executor="plain")
    assert {e.item: e.score for e in run.episodes} == score
    used = run.usage.input_tokens + run.usage.output_tokens
    assert used == sum(o.total_tokens or 0 for o in outcomes)
    for outcome in outcomes:
        assert (
            outcome.correct is not None and outcome.total_tokens is not None and outcome.utility is not None
        )
        assert outcome.utility == pytest.approx(
            outcome.correct - 0.2 * outcome.total_tokens / reference.tokens
        )


async def test_equal_prompts_are_paid_once_and_what_that_saved_is_counted(tmp_path: Path) -> None:
    model = Scripted(adding)
    alone = TEAM.topology(without_edges=[("ann", "bob")])
    async with real(tmp_path / "l", model=model) as environment:
        await environment.measure(2)
        whole = await environment.rollout(sums().items[0], TEAM.topology(), 0)
        asked = len(model.requests)
        # ann reads what she read before; bob and the judge do not.
        cut = await environment.rollout(sums().items[0], alone, 5)
        assert len(model.requests) == asked + 1  # bob says the same, so the judge reads the same
        assert environment.spent.saved_calls == 2
        again = await environment.rollout(sums().items[0], alone, 6)
        assert len(model.requests) == asked + 1
        spent = environment.spent
    assert whole.total_tokens is not None and cut.total_tokens is not None
    assert again.total_tokens == cut.total_tokens < whole.total_tokens  # what it takes, not what was paid
    assert (spent.rollouts, spent.reused, spent.calls, spent.saved_calls) == (5, 1, 7, 5)
    with Ledger.open(tmp_path / "l" / "ledger.sqlite", read_only=True) as ledger:
        usage = ledger.usage()
    assert (usage.calls, usage.cache_hits) == (7, 5)
    assert spent.tokens == usage.input_tokens + usage.output_tokens
    assert spent.saved_tokens == usage.hit_input_tokens + usage.hit_output_tokens
    assert set(usage.by_phase()) == {"learn"}


async def test_draws_are_as_many_as_asked_for_and_chosen_by_the_rollouts_seed(tmp_path: Path) -> None:
    model = Scripted(lambda request: f"{request.seed}")
    async with real(tmp_path / "l", model=model, draws=2, price=0) as environment:
        item = sums().items[0]
        for seed in (0, 1, 2, 3):
            await environment.rollout(item, TEAM.topology(), seed)
    seeds = {r.seed for r in model.requests}
    assert len(model.requests) == len(seeds) == 6  # three agents, two draws


async def test_what_a_directory_knows_is_never_asked_again(tmp_path: Path) -> None:
    model = Scripted(adding)
    topologies = drawn(Pool(TEAM), 6)

    async def all_of_it() -> tuple[list[Any], Any]:
        async with real(tmp_path / "l", model=model) as environment:
            await environment.measure(3)
            trials = [Trial(i, t, k) for k, (i, t) in enumerate(zip(sums().items, topologies, strict=True))]
            return await run_trials(environment, trials), environment.spent

    first, spent = await all_of_it()
    asked = len(model.requests)
    second, again = await all_of_it()
    assert len(model.requests) == asked
    assert [o.utility for o in second] == [o.utility for o in first]
    assert (again.rollouts, again.reused, again.calls, again.tokens) == (9, 9, spent.calls, spent.tokens)
    assert again.saved_calls == spent.saved_calls


async def test_records_made_at_another_price_are_priced_anew(tmp_path: Path) -> None:
    model = Scripted(adding)
    async with real(tmp_path / "a", model=model, price=0.5) as first:
        await first.measure(1)
        before = await first.rollout(sums().items[1], TEAM.topology(), 0)
    records = tmp_path / "a" / "records.jsonl"
    async with real(tmp_path / "b", model=model, price=0.0, records=records) as second:
        await second.measure(1)
        after = await second.rollout(sums().items[1], TEAM.topology(), 0)
        assert second.spent.reused == 2 and second.spent.calls == 0
    assert (before.utility, after.utility) == (pytest.approx(0.5), 1.0)


async def test_rollouts_run_side_by_side_as_the_model_allows(tmp_path: Path) -> None:
    model = Watching(adding, latency_s=0.01, max_concurrency=3)
    async with real(tmp_path / "l", model=model) as environment:
        assert environment.concurrency == Metered(environment).concurrency == 3
        await environment.run_all(environment.items, lambda item: TEAM.topology())
    assert model.most == 3


def failing(when: Callable[[str], bool], kind: str = "server", fatal: bool = False) -> Scripted:
    def answer(request: ChatRequest) -> str | Exception:
        text = "\n".join(m.content for m in request.messages)
        return BackendError("it broke", kind=kind, fatal=fatal) if when(text) else adding(request)

    return Scripted(answer)


async def test_a_rollout_in_which_an_agent_failed_is_a_failed_one(tmp_path: Path) -> None:
    model = failing(lambda text: "Be brief." in text and "What is 1 " in text)
    async with real(tmp_path / "l", model=model) as environment:
        await environment.measure(3)
        assert environment.reference is not None and environment.reference.items == ("q0", "q2")
        good, bad = await environment.run_all(sums(2).items, lambda item: TEAM.topology())
        assert environment.spent.failed == 2
    assert good.status == "ok" and good.utility is not None
    assert (bad.status, bad.correct, bad.utility) == ("failed", None, None)
    assert "bob, round 1: server: it broke" in bad.failure
    kept = read_records(tmp_path / "l" / "records.jsonl")
    assert [r.status for r in kept if r.item == "q1"] == ["failed"] * 2


async def test_an_agent_that_its_own_limit_silenced_has_not_failed(tmp_path: Path) -> None:
    team = AgentGraph(TEAM.agents, [*TEAM.edges, Edge("bob", "ann", "temporal")], "judge", rounds=2)
    options = RunOptions(executor="plain", agent_limits=Limits(calls=1))
    async with real(tmp_path / "l", team, options=options) as environment:
        outcome = await environment.rollout(sums().items[0], team.topology(), 0)
    assert outcome.status == "ok"


async def test_a_limit_on_tokens_ends_learning_and_raising_it_goes_on_from_there(tmp_path: Path) -> None:
    model = Scripted(adding, max_concurrency=1)
    topology = TEAM.topology()
    async with real(tmp_path / "l", model=model, tokens=400) as environment:
        with pytest.raises(LimitExceeded, match="tokens"):
            await environment.run_all(environment.items, lambda item: topology)
        paid = environment.spent
        assert 400 <= paid.tokens < 500
    kept = read_records(tmp_path / "l" / "records.jsonl")
    assert {r.status for r in kept} == {"ok"} and 0 < len(kept) < 6  # the cut-off one is no failure
    asked = len(model.requests)
    async with real(tmp_path / "l", model=model, tokens=400) as environment:
        with pytest.raises(LimitExceeded, match="tokens"):
            await environment.run_all(environment.items, lambda item: topology)
    assert len(model.requests) == asked
    async with real(tmp_path / "l", model=model, tokens=10_000) as environment:
        await environment.run_all(environment.items, lambda item: topology)
        assert environment.spent.calls == len(model.requests) == 18


async def test_what_would_fail_every_rollout_ends_learning(tmp_path: Path) -> None:
    async with real(tmp_path / "a", model=failing(lambda text: True, "refused", True)) as environment:
        with pytest.raises(BackendError, match="it broke"):
            await environment.run_all(environment.items, lambda item: TEAM.topology())
    model = failing(lambda text: True)
    async with real(tmp_path / "b", task=sums(20), model=model) as environment:
        with pytest.raises(RunError, match="the first .* rollouts all failed .*it broke"):
            await environment.run_all(environment.items, lambda item: TEAM.topology())
    async with real(tmp_path / "c", task=sums(3), model=model) as environment:
        with pytest.raises(RunError, match="the whole team failed on all of 3 items"):
            await environment.measure()


async def test_tokens_that_nobody_tells_can_not_have_a_price(tmp_path: Path) -> None:
    silent = Scripted(adding, report_usage=False)
    async with real(tmp_path / "a", model=silent) as environment:
        with pytest.raises(ConfigError, match="--price 0"):
            await environment.measure()
    async with real(tmp_path / "b", model=silent, price=0) as environment:
        await environment.measure()
        outcome = await environment.rollout(sums().items[0], TEAM.topology(), 1)
        assert (outcome.utility, outcome.total_tokens) == (1.0, None)
        assert environment.spent.unknown_calls == environment.spent.calls > 0


async def test_only_learn_items_are_ever_run(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="belongs to split 'score'"):
        real(tmp_path / "l", task=sums(split="score"))
    async with real(tmp_path / "l") as environment:
        with pytest.raises(TaskError, match="not among the learn items"):
            await environment.rollout(sums(9).items[8], TEAM.topology(), 0)
        assert environment.spent.calls == 0


async def test_a_directory_of_other_learning_is_refused_and_so_is_a_second_process(tmp_path: Path) -> None:
    async with real(tmp_path / "l", origin={"method": "agp"}) as environment:
        await environment.measure(1)
        with pytest.raises(ConfigError, match="another process"):
            await real(tmp_path / "l", origin={"method": "agp"}).__aenter__()
        with pytest.raises(ConfigError, match="another process writes records"):
            await real(tmp_path / "m", records=tmp_path / "l" / "records.jsonl").__aenter__()
    for change, said in [
        ({"origin": {"method": "gptswarm"}}, 'learning.method was "agp", now "gptswarm"'),
        ({"origin": {"method": "agp"}, "price": 0.7}, "price"),
        ({"origin": {"method": "agp"}, "task": sums(5)}, "learn_items"),
        ({"origin": {"method": "agp"}, "options": RunOptions(temperature=0.5)}, "temperature"),
    ]:
        with pytest.raises(ConfigError, match=said):
            await real(tmp_path / "l", **change).__aenter__()
    async with real(tmp_path / "l", origin={"method": "agp"}):  # and was left alone by all that
        pass


async def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    async with real(tmp_path / "l") as environment:
        await environment.measure(1)
    (tmp_path / "l" / "reference.json").write_text('{"tokens": "many"}')
    async with real(tmp_path / "l") as environment:
        with pytest.raises(ConfigError, match="reference.json"):
            await environment.measure(1)


async def test_progress_tells_rollouts_utility_and_time_left(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def hear(progress: LearnProgress) -> None:
        told.append((progress.spent.rollouts, progress.spent.calls))

    async with real(tmp_path / "l", on_progress=hear) as environment:
        environment.progress.total = 8
        assert environment.progress.seconds_left is None
        await environment.measure(2)
        await environment.run_all(sums(3).items, lambda item: TEAM.topology())
        assert environment.progress.recent == pytest.approx(0.8)
        assert environment.progress.seconds_left is not None
    assert told[-1] == (5, 9) and told == sorted(told)


def test_the_whole_team_of_a_complete_pool_has_every_forward_edge() -> None:
    pool = Pool(WORLD.pool.graph, "complete")
    arrays = pool.arrays(whole_team(pool))
    assert arrays.keep.all() and int(arrays.spatial.sum()) == 5 * 4 // 2
    assert whole_team(Pool(TEAM)) == TEAM.topology()


KILLED = """
import anyio, sys
from pathlib import Path
from tests.pruning.test_runner import TEAM, PLAIN, adding, drawn, sums
from agentcomm.backends.scripted import Scripted
from agentcomm.pruning.environment import Trial, run_trials
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.runner import RealEnvironment

class Noting(Scripted):
    async def chat(self, request):
        with open("asked", "a") as file:
            file.write(request.id + "\\n")
        return await super().chat(request)

async def go():
    task = sums(12)
    model = Noting(adding, latency_s=float(sys.argv[1]), max_concurrency=3)
    async with RealEnvironment(Pool(TEAM), task, task.items, model, "l", options=PLAIN) as environment:
        await environment.measure(4)
        topologies = drawn(Pool(TEAM), 24)
        trials = [Trial(task.items[k % 12], t, k) for k, t in enumerate(topologies)]
        outcomes = await run_trials(environment, trials)
        Path("done").write_text(repr([(o.utility, o.total_tokens) for o in outcomes]))
        Path("spent").write_text(repr(environment.spent.to_dict()))

anyio.run(go)
"""


def test_over_kill_9_nothing_is_paid_twice_and_the_outcomes_are_the_same(tmp_path: Path) -> None:
    def start(where: Path, latency: float) -> subprocess.Popen[str]:
        where.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(latency)],
            cwd=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        )  # fmt: skip

    straight = start(tmp_path / "straight", 0)
    assert straight.wait(300) == 0, straight.communicate()
    straight.communicate()
    cut = tmp_path / "cut"
    process = start(cut, 0.02)
    records = cut / "l" / "records.jsonl"
    wait_until(lambda: records.exists() and records.read_bytes().count(b"\n") >= 8, process, 300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = (cut / "asked").read_text().split()
    second = start(cut, 0)
    assert second.wait(300) == 0, second.communicate()
    second.communicate()
    asked = (cut / "asked").read_text().split()
    assert 8 < len(before) < len(asked)
    # Only what was in flight at the kill may be asked again.
    assert len(asked) - len(set(asked)) <= 3
    assert set(asked) == set((tmp_path / "straight" / "asked").read_text().split())
    assert (cut / "done").read_text() == (tmp_path / "straight" / "done").read_text()
    spent, expected = (eval((p / "spent").read_text()) for p in (cut, tmp_path / "straight"))
    assert spent["rollouts"] == expected["rollouts"] == 28
    assert 0 < spent["reused"] < 28
    assert spent["unknown_calls"] <= 3
    assert spent["calls"] - expected["calls"] <= 3
    assert json.loads(records.read_text().splitlines()[0])["split"] == "learn"


async def test_a_budget_counts_every_rollout_reused_ones_too(tmp_path: Path) -> None:
    for _ in range(2):
        async with real(tmp_path / "l") as environment:
            metered = Metered(environment, Budget(rollouts=4))
            with pytest.raises(LimitExceeded, match="rollouts"):
                await run_trials(
                    metered, [Trial(i, TEAM.topology(), k) for k, i in enumerate(environment.items)]
                )
            assert environment.spent.rollouts == 4
