"""What was tried is kept whole, goes on where it stopped, and never crosses splits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agentcomm import topologies
from agentcomm.api import run
from agentcomm.channels import from_words
from agentcomm.errors import ConfigError, LedgerError, LimitExceeded, TaskError
from agentcomm.evaluation.splits import SplitGuard, hash_of
from agentcomm.graph import Topology
from agentcomm.message import Usage
from agentcomm.pruning.environment import Budget, Environment, Metered, Outcome
from agentcomm.pruning.planted import PlantedWorld
from agentcomm.pruning.pool import Pool
from agentcomm.pruning.realise import EdgeProbabilities, log_probability, realise
from agentcomm.pruning.records import (
    Collector,
    Origin,
    Record,
    Records,
    labels,
    learned_from,
    read_records,
)
from agentcomm.task import Item

pytestmark = pytest.mark.anyio

WORLD = PlantedWorld(3, agents=5, domains=2)
LEARN, VALIDATE, SCORE = (WORLD.items(20, s) for s in ("learn", "validate", "score"))  # type: ignore[arg-type]
GUARD = SplitGuard.of([*LEARN, *VALIDATE, *SCORE])
ORIGIN = Origin("run-1", "agp", "planted", "planted", decoding={"temperature": 0.0})
EVEN = EdgeProbabilities.constant(5, 0.7, 0.5)


def collector(records: Records, environment: Environment = WORLD, **options: Any) -> Collector:
    return Collector(environment, records, GUARD, options.pop("origin", ORIGIN), **options)


async def collect(to: Collector, count: int = 20, seed: int = 0) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    outcomes = []
    for item in LEARN[:count]:
        r = realise(EVEN, to.pool, mode="bernoulli", rng=rng)
        outcomes.append(await to.rollout(item, r.topology, 7, realisation=r, probabilities=EVEN))
    return outcomes


async def test_a_record_says_what_ran_how_it_was_drawn_and_what_came_of_it(tmp_path: Path) -> None:
    with Records(tmp_path / "records.jsonl") as records:
        outcomes = await collect(collector(records, stage_round=2))
    back = read_records(tmp_path / "records.jsonl")
    assert len(back) == 20
    rng = np.random.default_rng(0)
    for item, outcome, record in zip(LEARN, outcomes, back, strict=True):
        r = realise(EVEN, WORLD.pool, mode="bernoulli", rng=rng)
        assert record.topology(WORLD.pool) == r.topology
        assert record.spatial == r.spatial.astype(int).tolist()
        assert record.outcome() == outcome
        assert (record.item, record.item_hash, record.split) == (item.id, hash_of(item), "learn")
        assert (record.stage_round, record.model, record.decision) == (2, "planted", "judge")
        assert record.roles[1] == "You are planted agent 1."
        assert record.tokens["cached"] is None and record.cost is None
        # Everything needed for reweighting: the draw itself can be made again and judged anew.
        again = realise(
            EdgeProbabilities.of(record.keep_prob or [], record.edge_prob or []),
            WORLD.pool,
            mode="bernoulli",
            rng=record.draw_seed,
        )
        assert again.order.tolist() == record.order
        assert log_probability(again, EVEN) == pytest.approx(record.log_prob)


async def test_the_edges_of_a_record_are_those_over_which_messages_were_delivered(tmp_path: Path) -> None:
    class Run:
        """The whole runner as an environment."""

        pool = WORLD.pool
        read: frozenset[tuple[str, str]] = frozenset()
        spoke: frozenset[str] = frozenset()

        async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
            episode = await run(
                self.pool.team(topology), item, WORLD.model(), topology=topology, executor="plain"
            )
            edges = [d.edge for r in episode.records for d in r.inbox if d.edge.reader != "judge"]
            self.read = frozenset((e.sender, e.reader) for e in edges)
            self.spoke = frozenset(r.agent for r in episode.records) - {"judge"}
            return Outcome(1.0, 1.0, Usage(episode.usage.input_tokens, episode.usage.output_tokens))

    environment = Run()
    with Records(tmp_path / "r.jsonl") as records:
        to = collector(records, environment)
        rng = np.random.default_rng(2)
        dropped = 0
        for item in LEARN:
            r = realise(EVEN, to.pool, mode="bernoulli", rng=rng)
            await to.rollout(item, r.topology, 0, realisation=r)
            *_, record = records
            names = to.pool.names
            keep, spatial, _ = record.arrays
            assert environment.read == {(names[i], names[j]) for i, j in np.argwhere(spatial)}
            assert environment.spoke == {names[i] for i in np.flatnonzero(keep)}
            dropped += int(r.considered.sum() - spatial.sum())
        assert dropped > 20  # pairs that only passed the cycle check are no edges


async def test_collecting_goes_on_where_it_was_cut_off_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with Records(whole) as records:
        expected = await collect(collector(records))
    with Records(cut) as records:
        with pytest.raises(LimitExceeded):
            await collect(collector(records, Metered(WORLD, Budget(rollouts=7))))
        assert len(records) == 7
    with cut.open("a") as file:
        file.write('{"run_id": "run-1", "met')  # killed while it wrote
    assert len(read_records(cut)) == 7
    metered = Metered(WORLD)
    with Records(cut) as records:
        to = collector(records, metered)
        assert await collect(to) == expected
    assert metered.rollouts == 13
    assert to.reused == 7
    assert to.saved_tokens == sum(o.total_tokens or 0 for o in expected[:7])
    assert cut.read_bytes() == whole.read_bytes()


async def test_another_seed_or_topology_is_run_and_not_answered_from_a_record(tmp_path: Path) -> None:
    with Records(tmp_path / "r.jsonl") as records:
        to = collector(records)
        for seed, topology in [(0, WORLD.oracle(0)), (1, WORLD.oracle(0)), (0, WORLD.oracle(1))]:
            await to.rollout(LEARN[0], topology, seed)
        await to.rollout(LEARN[1], WORLD.oracle(0), 0)
        assert (len(records), to.reused) == (4, 0)
        await to.rollout(LEARN[1], WORLD.oracle(0), 0)
        assert (len(records), to.reused) == (4, 1)


async def test_failures_are_kept_tried_again_and_are_no_labels(tmp_path: Path) -> None:
    broken = dataclasses.replace(WORLD, failure_rate=1.0)
    path = tmp_path / "r.jsonl"
    with Records(path) as records:
        outcomes = await collect(collector(records, broken), 3)
        assert {o.status for o in outcomes} == {"failed"}
    with Records(path) as records:
        await collect(collector(records), 3)
        assert [r.status for r in records] == ["failed"] * 3 + ["ok"] * 3
    kept = read_records(path)
    assert kept[0].correct is None and kept[0].utility is None and kept[0].failure
    assert kept[0].tokens["prompt"]
    with pytest.raises(TaskError, match="of 6 records none has a weight above 0 .3 failed."):
        labels(kept, GUARD)
    weighted = [dataclasses.replace(r, weight=0.5) for r in kept]
    assert labels(weighted, GUARD) == tuple(weighted[3:])


async def test_splits_are_enforced_by_the_miner_the_trainer_and_the_evaluator(tmp_path: Path) -> None:
    with Records(tmp_path / "r.jsonl") as records:
        to = collector(records)
        for item in (VALIDATE[0], SCORE[0], WORLD.items(1, start=500)[0]):
            with pytest.raises(TaskError, match="not among the learn items"):
                await to.rollout(item, WORLD.oracle(0), 0)
        assert len(records) == 0
        await collect(to, 2)
        first, second = records
    label = dataclasses.replace(first, weight=1.0)
    foreign = dataclasses.replace(second, item_hash=hash_of(SCORE[0]))
    with pytest.raises(TaskError, match="belong to split score"):
        labels([label, foreign], GUARD)
    with pytest.raises(TaskError, match="says split 'score'"):
        labels([label, dataclasses.replace(second, split="score")], GUARD)
    GUARD.evaluate(SCORE, learned_from([first, second]))
    with pytest.raises(TaskError, match="used for learning"):
        GUARD.evaluate(LEARN, learned_from([first, second]))


async def test_records_of_another_team_model_or_decoding_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Records(path) as records:
        await collect(collector(records), 1)
    with Records(path) as records:
        for change in ({"model": "vllm/other"}, {"decoding": {"temperature": 0.7}}):
            with pytest.raises(ConfigError, match=f"records with {next(iter(change))}"):
                collector(records, origin=dataclasses.replace(ORIGIN, **change))
        with pytest.raises(ConfigError, match="records with pool_hash"):
            collector(records, PlantedWorld(3, agents=6))
        shorter = WORLD.pool.graph.with_channel(from_words("truncate:tokens=20"))
        changed: Any = SimpleNamespace(pool=Pool(shorter, WORLD.pool.edges), rollout=WORLD.rollout)
        with pytest.raises(ConfigError, match="records with prompt_hash"):
            collector(records, changed)
        (record,) = records
    with pytest.raises(ConfigError, match="of another team"):
        record.topology(Pool(topologies.independent(list("abcde"), "judge"), "complete"))
    other = WORLD.oracle(0)
    r = realise(EVEN, WORLD.pool, mode="bernoulli", rng=0)
    with Records(path) as records:
        to = collector(records)
        with pytest.raises(ConfigError, match="of another topology"):
            await to.rollout(LEARN[0], other, 0, realisation=r)


async def test_any_text_round_trips_and_rounds_keep_their_axis(tmp_path: Path) -> None:
    pool = Pool(topologies.mesh(["a", "b", "c"], "judge", rounds=2))
    item = Item("1", 'f(x) = {"a": [1}\n\u2028\ud800 "', metadata={"split": "learn"})

    class Asked:
        pool = Pool(topologies.mesh(["a", "b", "c"], "judge", rounds=2))

        async def rollout(self, item: Item, topology: Topology, seed: int) -> Outcome:
            return Outcome(0.5, None, Usage(3, None))

    r = realise(
        EdgeProbabilities.constant(3, 0.7, 0.5, rounds=2),
        pool,
        mode="bernoulli",
        rng=np.random.default_rng(1),
    )
    with Records(tmp_path / "r.jsonl") as records:
        to = Collector(Asked(), records, SplitGuard(frozenset([hash_of(item)])), ORIGIN)
        await to.rollout(item, r.topology, 0, realisation=r)
    (record,) = read_records(tmp_path / "r.jsonl")
    assert record.query == item.question
    assert record.topology(pool) == r.topology and record.arrays.keep.shape == (2, 3)
    assert record.utility is None and record.tokens == {"prompt": 3, "completion": None, "cached": None}
    assert record.outcome().total_tokens is None


async def test_files_that_are_no_records_are_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Records(path) as records:
        await collect(collector(records), 2)
    good = path.read_text().splitlines()
    newer = json.dumps({**json.loads(good[0]), "schema": 99})
    extra = json.dumps({**json.loads(good[0]), "surprise": 1})
    for lines, said in [
        ([good[0], "{broken", good[1]], "line 2 is no record"),
        ([newer], "schema 99; this version reads up to 1"),
        ([extra], "surprise"),
        (["[1, 2]"], "not a JSON object"),
    ]:
        path.write_text("\n".join(lines) + "\n")
        before = path.read_bytes()
        with pytest.raises(ConfigError, match=said):
            Records(path)
        with pytest.raises(ConfigError, match=said):
            read_records(path)
        assert path.read_bytes() == before
    path.write_bytes(b"PK\x03\x04 a zip archive")
    with pytest.raises(ConfigError, match="no file of records"):
        Records(path)
    assert path.read_bytes().startswith(b"PK")
    with pytest.raises(ConfigError, match="can't be opened"):
        Records(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        read_records(tmp_path / "none.jsonl")


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    with Records(tmp_path / "r.jsonl") as records:
        records.close()
        monkeypatch.setattr(records, "_file", Full())
        with pytest.raises(LedgerError, match="No space left"):
            await collect(collector(records), 1)
        assert len(records) == 0


def test_a_record_that_is_not_a_number_is_never_written() -> None:
    record = Record(
        "r", "m", "1", "h", "d", "learn", "q", [], "p", "p", "m", "judge", [1], [[0]], [[0]], 0,
        float("nan"), None, {}, "ok",
    )  # fmt: skip
    with pytest.raises(ValueError, match="JSON compliant"):
        record.to_json()
