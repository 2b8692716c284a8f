"""What published pruning code got wrong (the specification's section 8), where no other test would catch it.

``design/pruning_checklist.md`` lists every defect with its test.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import anyio
import numpy as np
import pytest

from agentcomm.calls import Retry
from agentcomm.errors import ConfigError, TaskError
from agentcomm.evaluation.run import Run, evaluate
from agentcomm.evaluation.splits import hash_of
from agentcomm.graph import Agent, AgentGraph
from agentcomm.pruning.imitation import Targets
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.policy import Card, StaticPolicy, load
from agentcomm.pruning.realise import EdgeProbabilities
from agentcomm.sandbox import run_python
from agentcomm.task import Item, Score, Task
from tests.servers import CountingServer, ok, status

pytestmark = pytest.mark.anyio

WORLD = PlantedWorld(2, agents=5, domains=2, misleaders=1)


def decided(world: PlantedWorld, domain: int = 0) -> StaticPolicy:
    """The oracle of one domain, as a policy."""
    card = Card("test", learned_from=frozenset(map(hash_of, world.items(20))), spent={"tokens": 100})
    probabilities = EdgeProbabilities.of_topology(world.pool, world.oracle(domain))
    return StaticPolicy(world.pool, card, probabilities)


async def evaluated(out: Path | None, policy: StaticPolicy, count: int = 13) -> Run:
    return await evaluate(
        WORLD.graph,
        WORLD.task(count, "score"),
        WORLD.model(),
        topology=policy,
        out=out,
        executor="plain",
        max_concurrency=4,
    )


# ---------------------------------------------------------------------------- global state, seeds


def transcript(seed: int = 0) -> str:
    """A hash of every prompt and reply of a run, in order."""
    model = WORLD.model()

    async def go() -> Run:
        return await evaluate(
            WORLD.graph,
            WORLD.task(3, "score"),
            model,
            topology=decided(WORLD),
            executor="plain",
            seed=seed,
            max_concurrency=1,
        )

    run = anyio.run(go)
    said = [[(m.role, m.content) for m in request.messages] for request in model.requests]
    answers = [e.answer for e in run.episodes]
    return hashlib.sha256(json.dumps([said, answers]).encode()).hexdigest()


def test_a_fresh_process_and_a_used_one_write_the_same_transcript() -> None:
    """Released code deals roles from a process-global cycle, so a second run has other roles."""
    used = [transcript(), transcript()]
    code = "from tests.pruning.test_checklist import transcript; print(transcript())"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=900,
        check=True,
    )
    assert used == [fresh.stdout.strip()] * 2


# ------------------------------------------------------------------------------ what is counted


async def test_thirteen_items_four_at_a_time_give_thirteen_results_and_their_own_accuracy() -> None:
    """Released code drops the last partial batch, and averages training batches into the accuracy."""
    policy = decided(WORLD)
    run = await evaluated(None, policy)
    task = WORLD.task(13, "score")
    assert [e.item for e in run.episodes] == [item.id for item in task.items]
    answers = {e.item: e.answer for e in run.episodes}
    again = [task.score(item, answers[item.id] or "") for item in task.items]
    assert all(isinstance(s, Score) for s in again)
    mean = float(np.mean([s.value for s in again if isinstance(s, Score)]))
    assert run.summary()["score"]["mean"] == pytest.approx(mean)
    assert 0.0 < mean < 1.0  # of both kinds, or the figure would prove nothing
    assert not policy.card.learned_from & {hash_of(item) for item in task.items}


async def test_a_second_checkpoint_is_not_scored_in_the_run_of_the_first(tmp_path: Path) -> None:
    """Published figures are the best of several test steps; a run is of one policy and stays so."""
    await evaluated(tmp_path / "run", decided(WORLD), 3)
    later = decided(WORLD, 1)  # the same learning, other weights
    with pytest.raises(ConfigError, match=r"topology\.id"):
        await evaluated(tmp_path / "run", later, 3)
    # And of one learning there is one policy: what is saved later replaces it.
    decided(WORLD).save(tmp_path / "p")
    later.save(tmp_path / "p")
    assert load(tmp_path / "p", WORLD.graph).spec() == later.spec()
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["policy.json", "weights.safetensors"]


async def test_a_call_that_fails_twice_and_then_succeeds_makes_three_attempts() -> None:
    """Released code catches errors inside the retry wrapper, which then never retries."""
    graph = AgentGraph([Agent("solo")], (), "solo")
    task = Task("one", [Item("q", "Say 1.", "1")], lambda item, text: Score(1.0))
    with CountingServer() as server:
        server.script(status(500), status(503), ok())
        run = await evaluate(
            graph,
            task,
            f"openai/{server.model}",
            base_url=server.url,
            retry=Retry(attempts=3, scale=0.0),
            executor="plain",
        )
        assert server.tokens.requests == 3
    assert run.failed == 0 and [r.attempt for r in run.usage.rows] == [1, 2, 3]
    assert [r.error_kind is None for r in run.usage.rows] == [False, False, True]


async def test_one_candidates_functions_are_not_there_for_the_next() -> None:
    """Released code executes programs in its own process, where their names leak."""
    told = "def helper():\n    return 41\nimport builtins\nbuiltins.helper = helper\nprint(helper())"
    assert (await run_python(told)).status == "ok"
    after = await run_python("print(helper())")
    assert after.status == "error" and "NameError" in after.stderr


# ------------------------------------------------------------------------------ all agents pruned


def test_labels_that_keep_nobody_are_refused() -> None:
    keep = np.ones((4, 3), dtype=bool)
    keep[1] = False
    keep[2, 0] = False
    none = np.zeros((4, 3, 3), dtype=bool)
    allowed = ~np.eye(3, dtype=bool)
    targets = Targets(np.zeros((4, 2)), keep, none, none, np.ones(4), allowed, allowed & False)
    with pytest.raises(TaskError, match="all agents are pruned in 1 of 4 labels"):
        targets.check()


def test_a_policy_that_prunes_everybody_says_that_it_keeps_the_likeliest(tmp_path: Path) -> None:
    n = len(WORLD.pool)
    keep = np.full(n, 0.1)
    keep[3] = 0.2
    policy = StaticPolicy(WORLD.pool, Card("test"), EdgeProbabilities.of(keep, np.zeros((n, n))))
    assert policy(WORLD.items(1)[0]).masks[0].agents == {"a3", "judge"}
    assert any("all agents are pruned" in note and "a3" in note for note in policy.card.notes)
    policy.save(tmp_path)
    assert load(tmp_path, WORLD.graph).card.notes == policy.card.notes  # said once
    assert not decided(WORLD).card.notes


# ---------------------------------------------------------------------------------- the checklist


def test_every_test_that_the_checklist_names_is_there() -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (root / "design" / "pruning_checklist.md").read_text())
    assert len(named) > 60
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (root / file).read_text(), re.MULTILINE), (file, name)
