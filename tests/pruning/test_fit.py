"""fit: a method by its name, a budget divided before anything is paid, and a card that tells it all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.scripted import Scripted
from agentcomm.errors import BackendError, ConfigError, LimitExceeded, RunError, TaskError
from agentcomm.evaluation.run import evaluate
from agentcomm.evaluation.splits import hash_of
from agentcomm.options import RunOptions
from agentcomm.pruning import fitting
from agentcomm.pruning.fitting import ABOUT, fit, fit_async, learn, learner
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import load
from agentcomm.pruning.records import Record, read_records
from agentcomm.task import Item, Score, Task
from tests.pruning.test_runner import PLAIN, TEAM, adding, sums
from tests.pruning.tiny import Tiny

WORLD = PlantedWorld(3, agents=5, domains=1)


def planted(count: int = 20, split: Any = "learn") -> Task:
    return WORLD.task(count, split)


def test_a_planted_world_is_learned_like_a_team() -> None:
    policy = fit(WORLD.pool.graph, planted(), Tiny(), environment=WORLD, rollouts=40)
    assert policy.card.method == "tiny"
    assert policy.card.spent["rollouts"] == 40
    assert policy.card.learned_from == {hash_of(i) for i in planted().items}
    assert policy(planted().items[0]) == policy(planted().items[1])


def test_every_method_that_is_there_can_be_looked_up_and_learns_a_planted_world() -> None:
    found = []
    for name in ac.pruning.METHODS:
        try:
            assert ac.pruning.METHODS[name].name == name
        except KeyError:  # not part of this version
            continue
        found.append(name)
        policy = fit(WORLD.pool.graph, planted(), name, environment=WORLD, rollouts=130)
        assert policy.card.method == name
        assert (policy.card.spent["rollouts"] or 0) <= 130
        assert WORLD.pool.decision in policy(planted().items[0]).masks[0].agents
    assert {"gptswarm", "agentprune"} <= set(found)


def test_importing_and_listing_needs_no_torch_and_no_runner() -> None:
    code = (
        "import sys, agentcomm as ac; list(ac.pruning.METHODS); ac.pruning.fit; ac.pruning.load; ac.pruning.METHODS;"
        "assert callable(ac.pruning.fit);"
        "print([m for m in ('torch', 'openai', 'langgraph', 'agentcomm.pruning.runner') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_real_team_is_learned_measured_and_its_policy_evaluated(tmp_path: Path) -> None:
    model = Scripted(adding)
    learned = _learn(tmp_path / "p", model, rollouts=24)
    spent, savings = learned.policy.card.spent, learned.savings
    assert spent["rollouts"] == 24
    assert learned.reference is not None and savings is not None
    assert len(learned.reference.items) == 4  # a sixth
    paid = spent["tokens"]
    assert paid is not None and paid == savings.learning > 0
    assert spent["calls"] == len(model.requests)
    kept = read_records(tmp_path / "p" / "learning" / "records.jsonl")
    assert {r.split for r in kept} == {"learn"} and len(kept) <= 24
    # What it does on items it has not seen, as another process would load it.
    policy = load(tmp_path / "p", TEAM)
    assert policy.spec() == learned.policy.spec()
    scored = sums(5, "score")
    scored = Task("sums", [Item(f"s{i}", f"What is {i + 50} plus {i + 50}?", str(2 * i + 100)) for i in range(5)], scored.score)  # fmt: skip

    async def go() -> Any:
        return await evaluate(TEAM, scored, model, topology=policy, executor="plain")

    import anyio

    run = anyio.run(go)
    assert run.config["topology"]["spent"]["tokens"] == paid
    assert {json.loads(e.topology or "")["masks"][0]["agents"] == sorted(policy(scored.items[0]).masks[0].agents) for e in run.episodes} == {True}  # fmt: skip


def _learn(folder: Path, model: Any, task: Task | None = None, method: Any = None, **more: Any) -> Any:
    import anyio

    more.setdefault("options", PLAIN)
    return anyio.run(lambda: learn(TEAM, task or sums(8), method or Tiny(), model=model, out=folder, **more))


def test_what_was_cut_is_measured_agent_by_agent_and_edge_by_edge(tmp_path: Path) -> None:
    class Cut(Tiny):
        """Cuts bob."""

        async def fit(self, items: Any, environment: Any, budget: Any) -> Any:
            from agentcomm.pruning.policy import Card, StaticPolicy
            from agentcomm.pruning.realise import EdgeProbabilities

            topology = TEAM.topology(without_agents=["bob"])
            return StaticPolicy(
                environment.pool, Card("cut"), EdgeProbabilities.of_topology(environment.pool, topology)
            )

    model = Scripted(adding)
    validate = sums(12, "validate")
    savings = _learn(tmp_path / "p", model, method=Cut(), validate=validate, rollouts=12).savings
    agents = {s.name: s for s in savings.agents}
    edges = {s.name: s for s in savings.edges}
    assert (agents["ann"].kept, agents["bob"].kept) == (1.0, 0.0)
    assert {n: e.kept for n, e in edges.items()} == {"ann->bob": 0, "ann->judge": 1, "bob->judge": 0}
    assert agents["ann"].saved == 0 and agents["bob"].after == 0
    assert edges["ann->judge"].saved == 0 and edges["bob->judge"].after == 0
    # The whole difference is what bob took, and what the judge paid to read him.
    assert savings.before - savings.after == agents["bob"].saved + edges["bob->judge"].saved
    assert (savings.asked, savings.asked_on, savings.measured) == (12, "validate", 2)
    assert savings.break_even == pytest.approx(savings.learning / (savings.before - savings.after))
    assert savings.to_dict()["edges"][0]["in_graph"] is True


def test_the_same_call_again_pays_nothing_and_gives_the_same_policy(tmp_path: Path) -> None:
    model = Scripted(adding)
    first = _learn(tmp_path / "p", model, rollouts=24)
    asked, file = len(model.requests), (tmp_path / "p" / "policy.json").read_bytes()
    second = _learn(tmp_path / "p", model, rollouts=24)
    assert len(model.requests) == asked
    assert second.savings == first.savings and second.policy.spec()["id"] == first.policy.spec()["id"]
    before, after = json.loads(file), json.loads((tmp_path / "p" / "policy.json").read_bytes())
    assert before["card"]["spent"].pop("reused") < 24 == after["card"]["spent"].pop("reused")
    assert after == before


def test_another_method_or_setting_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    model = Scripted(adding)
    _learn(tmp_path / "p", model, rollouts=12)
    with pytest.raises(ConfigError, match=r"learning.settings.choices was 4, now 3"):
        _learn(tmp_path / "p", model, rollouts=12, method=Tiny(choices=3))
    _learn(tmp_path / "p", model, rollouts=18)  # a larger budget does


def learned_whole(folder: Path) -> list[Any]:
    kept = read_records(folder / "p" / "learning" / "records.jsonl")
    return [(r.item, r.outcome()) for r in kept if sum(r.keep) == 2 and sum(map(sum, r.spatial)) == 1]


def test_tokens_alone_plan_as_many_rollouts_as_the_whole_team_could_make(tmp_path: Path) -> None:
    model = Scripted(adding)
    learned = _learn(tmp_path / "p", model, tokens=1500)
    (first,) = {o.total_tokens for i, o in learned_whole(tmp_path) if i == "q0"}
    spent = learned.policy.card.spent
    assert spent["rollouts"] == 1500 // first
    assert 0 < spent["tokens"] <= 1500


def test_a_first_item_that_fails_does_not_look_like_a_model_that_hides_its_tokens(tmp_path: Path) -> None:
    first = sums(8).items[0].question

    def failing(request: Any) -> Any:
        prompt = "\n".join(m.content for m in request.messages)
        return BackendError("hiccup", kind="broken_reply") if first in prompt else adding(request)

    learned = _learn(tmp_path / "p", Scripted(failing), tokens=1500)
    assert learned.policy.card.spent["failed"] >= 1
    with pytest.raises(RunError, match="failed.*hiccup"):
        _learn(tmp_path / "q", Scripted(lambda r: BackendError("hiccup", kind="broken_reply")), tokens=1500)


def test_fewer_rollouts_than_the_folder_was_begun_with_are_told(tmp_path: Path) -> None:
    _learn(tmp_path / "p", Scripted(adding), rollouts=24)
    with pytest.raises(ConfigError, match="rollouts are fewer than the .* give at least that many"):
        _learn(tmp_path / "p", Scripted(adding), rollouts=6)


def test_tokens_that_run_out_are_told_and_more_go_on(tmp_path: Path) -> None:
    model = Scripted(adding, max_concurrency=1)
    with pytest.raises(LimitExceeded, match="raise the limit"):
        _learn(tmp_path / "p", model, rollouts=24, tokens=500)
    assert not (tmp_path / "p" / "policy.json").exists()
    asked = len(model.requests)
    learned = _learn(tmp_path / "p", model, rollouts=24)
    assert len(model.requests) == learned.policy.card.spent["calls"] > asked


def test_a_method_that_can_learns_from_what_was_tried_before(tmp_path: Path) -> None:
    seen: list[list[tuple[str, float | None]]] = []

    @dataclass(frozen=True)
    class Reading(Tiny):
        records: tuple[Record, ...] = ()

        async def fit(self, items: Any, environment: Any, budget: Any) -> Any:
            seen.append([(r.item, r.utility) for r in self.records])
            return await super().fit(items, environment, budget)

    model, shared = Scripted(adding), tmp_path / "shared.jsonl"
    _learn(tmp_path / "a", model, method=Tiny(seed=1), rollouts=12, records=shared, price=0.5)
    before = read_records(shared)
    first = _learn(tmp_path / "b", model, method=Reading(), rollouts=12, records=shared)
    assert [item for item, _ in seen[0][: len(before)]] == [r.item for r in before]
    assert [u for _, u in seen[0]] != [r.utility for r in before]  # at this price, not at that one
    assert len(read_records(shared)) > len(before)
    again = _learn(tmp_path / "b", model, method=Reading(), rollouts=12, records=shared)
    assert seen[1] == seen[0] and again.policy.spec()["id"] == first.policy.spec()["id"]
    _learn(tmp_path / "c", model, method=Reading(), rollouts=12)
    assert [item for item, _ in seen[2]] == ["q0", "q1"]  # the whole team, which was measured


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    policy = fit(
        TEAM, sums(8), Tiny(), model=Scripted(adding), rollouts=12, executor="plain"
    )  # fmt: skip
    assert policy.card.spent["rollouts"] == 12
    assert list(tmp_path.iterdir()) == []


def test_edges_that_the_graph_lacks_are_learned_in_a_complete_pool(tmp_path: Path) -> None:
    learned = _learn(tmp_path / "p", Scripted(adding), rollouts=24, edges="complete", method=Tiny(keep=1.0))
    assert learned.policy.pool.edges == "complete"
    added = {s.name for s in learned.savings.edges if not s.there}
    assert added <= {"bob->ann"}
    assert load(tmp_path / "p", TEAM).pool.id == learned.policy.pool.id


@pytest.mark.anyio
async def test_in_an_event_loop_the_async_one_is_named_and_works() -> None:
    with pytest.raises(ConfigError, match="await fit_async"):
        fit(WORLD.pool.graph, planted(), Tiny(), environment=WORLD, rollouts=8)
    policy = await fit_async(WORLD.pool.graph, planted(), Tiny(), environment=WORLD, rollouts=8)
    assert policy.card.spent["rollouts"] == 8


def test_items_of_other_splits_are_never_learned_from(tmp_path: Path) -> None:
    model = Scripted(adding)
    with pytest.raises(TaskError, match="split 'learn'"):
        _learn(tmp_path / "a", model, task=sums(4, "score"))
    silent = Task("sums", [Item("a", "What is 1 plus 1?")], lambda item, text: Score(1.0))
    with pytest.raises(TaskError, match="which split"):
        _learn(tmp_path / "b", model, task=silent)
    # Validate items are asked about, and run only to confirm.
    both = Task("sums", [*sums(4).items, *(i for i in _renamed(sums(8, "validate")))], sums().score)
    learned = _learn(tmp_path / "c", model, task=both, rollouts=24, confirm=0)
    assert len(learned.policy.card.learned_from) == 4
    assert learned.savings.asked_on == "validate"
    asked = "\n".join(m.content for r in model.requests for m in r.messages)
    assert "What is 3 " in asked and "What is 5 " not in asked


def _renamed(task: Task) -> list[Item]:
    import dataclasses

    return [dataclasses.replace(i, id=f"v{i.id}") for i in task.items]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"method": "magic"}, "unknown method 'magic'; there are: frugal, agp"),
        ({"method": "gptswarm", "colour": 3}, "method 'gptswarm' has no setting 'colour'; it has: "),
        ({"rollouts": 0}, "rollouts=0; it must be above 0"),
        ({"rollouts": 3}, "3 rollouts are too few"),
        ({"tokens": -1}, "tokens=-1"),
        ({"price": -0.1}, "price of -0.1"),
        ({"draws": 0}, "draws=0"),
        ({"edges": "some"}, "edges='some'"),
        ({"method": object()}, "is no learner"),
        ({"temperature": -1}, "temperature=-1"),
        ({"tokens": 100}, "too few .* give at least 6 times that"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_what_can_not_be_meant_is_the_users_to_mend(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    given = {"method": Tiny(), "model": Scripted(adding), "executor": "plain", "out": tmp_path / "p", **more}
    method = given.pop("method")
    with pytest.raises((ac.UserError, LimitExceeded), match=said):
        fit(TEAM, sums(8), method, **given)


def test_settings_reach_the_method_and_options_the_run() -> None:
    assert learner("gptswarm", seed=7).seed == 7
    told = fitting._settings({"temperature": 0.3, "rollouts": 5, "iterations": 9})
    assert told["rollouts"] == 5 and told["settings"] == {"iterations": 9}
    assert told["options"] == RunOptions(temperature=0.3)
    assert set(ABOUT) == set(ac.pruning.METHODS)
