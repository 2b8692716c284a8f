"""Learning: generate, rank, select, train, again; resumable, metered, and accepted only where it is better."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentcomm as ac
from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.dialogue.export import ModelRef
from agentcomm.dialogue.formats import POOL
from agentcomm.dialogue.generate import Stage
from agentcomm.dialogue.learning import Learning
from agentcomm.dialogue.plan import LearnConfig
from agentcomm.dialogue.played import READER, Ask, iteration_of, purpose_of, sample_of
from agentcomm.dialogue.readability import Off
from agentcomm.dialogue.reward import RewardConfig
from agentcomm.dialogue.rows import read_rows
from agentcomm.dialogue.standing import spent
from agentcomm.dialogue.workshop import Elsewhere
from agentcomm.errors import BackendError, ConfigError, RunError, TaskError
from agentcomm.evaluation.run import evaluate
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_task
from agentcomm.message import Reply, Usage
from agentcomm.options import RunOptions
from tests.dialogue.classroom import (
    LEARN,
    REWARD,
    SMALL,
    VALIDATE,
    Classroom,
    Letters,
    items,
    lesson,
    manifests,
    speak,
    taught,
    team,
)

pytestmark = pytest.mark.anyio


def ledger(out: Path) -> Ledger:
    return Ledger.open(out / "ledger.sqlite", read_only=True)


# ------------------------------------------------------------------------------- the loop


async def test_isft_trains_on_the_best_dialogues_and_each_iteration_goes_on_from_the_last(
    tmp_path: Path,
) -> None:
    room = Classroom()
    made = await taught(tmp_path / "a", room, 3)
    assert [t[0] for t in room.trained] == ["sft"] * 3
    assert [t[1] for t in room.trained] == [
        ModelRef("base"),
        *(ModelRef("base", (str(tmp_path / "a" / f"iter{k}"),)) for k in (1, 2)),
    ]
    assert made.adapter == tmp_path / "a" / "iter3"
    before, after = made.manifests[0]["accept"]["before"], made.manifests[2]["accept"]["after"]
    assert after["tokens"] < 0.5 * before["tokens"] and after["task"] == before["task"] == 1.0
    assert made.policy is not None and made.policy.models == dict.fromkeys(
        ["alice", "bob"], "scripted/level3"
    )


async def test_debates_restart_from_the_base_model(tmp_path: Path) -> None:
    room = Classroom()
    await taught(tmp_path / "a", room, 2, restart=True, accept="always")
    assert [t[1] for t in room.trained] == [ModelRef("base")] * 2


async def test_idpo_prefers_messages_of_trees_after_a_first_imitation_with_the_sft_term(
    tmp_path: Path,
) -> None:
    room = Classroom()
    made = await taught(tmp_path / "a", room, 2, method="idpo")
    assert [t[0] for t in room.trained] == ["sft", "rpo"]
    assert made.manifests[1]["dialogues"] <= len(LEARN.items) * SMALL["expansions"] * SMALL["rollouts"]
    trees = [json.loads(x) for x in (tmp_path / "a/learn/iteration-001/trees.jsonl").read_text().splitlines()]
    assert [t["item"] for t in trees] == [i.id for i in LEARN.items]
    found = read_rows(tmp_path / "a/learn/iteration-001/rows.jsonl")
    assert found and all(len(r.texts) == 2 and r.texts[0] != r.texts[1] for r in found)


async def test_the_hybrid_alternates_and_its_dpo_has_no_sft_term(tmp_path: Path) -> None:
    room = Classroom()
    await taught(tmp_path / "a", room, 4, method="isft-dpo", accept="always")
    assert [t[0] for t in room.trained] == ["sft", "dpo", "sft", "dpo"]
    # DPO starts from the last model that was imitated into being.
    assert [t[1].adapters for t in room.trained] == [
        (),
        *((str(tmp_path / "a" / f"iter{k}"),) for k in (1, 2, 3)),
    ]


async def test_every_dialogue_notes_its_format_and_no_pool_text_stands_in_any_row_prompt(
    tmp_path: Path,
) -> None:
    room = Classroom()
    await taught(tmp_path / "a", room, 1, formats=tuple(POOL))
    with ledger(tmp_path / "a") as book:
        drawn = {d.format for d in book.dialogues() if d.purpose == "generate"}
        assert len(drawn) > 3 and {d.format for d in book.dialogues() if d.purpose == "accept"} == {"natural"}
    kept = read_rows(tmp_path / "a/learn/iteration-000/rows.jsonl")
    assert kept
    for row in kept:
        prompt = "\n".join(m.content for m in row.prompt)
        assert not [f.id for f in POOL.values() if f.instruction and f.instruction in prompt]


async def test_only_the_first_iteration_is_told_formats_and_none_are_where_there_is_no_pool(
    tmp_path: Path,
) -> None:
    made = await taught(tmp_path / "a", iterations=2)
    assert [m["from_pool"] for m in made.manifests] == [True, False]
    assert (await taught(tmp_path / "b", iterations=1, formats=())).manifests[0]["from_pool"] is False


# ------------------------------------------------------------------------------ what is recorded


async def test_every_reward_component_is_in_the_ledger_for_every_dialogue(tmp_path: Path) -> None:
    await taught(tmp_path / "a", iterations=1)
    lines = (tmp_path / "a/learn/iteration-000/dialogues.jsonl").read_text().splitlines()
    written = {(x["item"], x["sample"]): x for x in map(json.loads, lines)}
    with ledger(tmp_path / "a") as book:
        recorded, episodes = book.dialogues(), book.episodes()
    assert {(d.item, d.sample) for d in recorded} == {(e.item, e.sample) for e in episodes} == set(written)
    for d in recorded:
        terms = written[d.item, d.sample]["reward"]
        for name in ("task", "tokens", "normaliser", "ratio", "nll", "task_term", "token_term", "loss_term"):
            assert getattr(d, name) == pytest.approx(terms[name]), name
        assert d.total == pytest.approx(d.task_term + d.token_term + d.loss_term)
        assert list(d.guards) == terms["guards"] and d.selectable == terms["selectable"]
        assert d.ratio == pytest.approx(d.tokens / d.normaliser) and d.readability == "letters"
        assert len(d.nlls) == len(written[d.item, d.sample]["messages"])
        assert d.message_tokens and d.completion_tokens and d.total_tokens > d.completion_tokens


async def test_the_longest_of_an_items_dialogues_normalises_it_and_trees_have_one_quantile(
    tmp_path: Path,
) -> None:
    made = await taught(tmp_path / "a", iterations=2, method="idpo")
    with ledger(tmp_path / "a") as book:
        for item in LEARN.items:
            group = [d for d in book.dialogues(item=item.id) if d.purpose == "generate"]
            assert {d.normaliser for d in group} == {max(d.tokens for d in group if d.tokens)}
        searched = {d.normaliser for d in book.dialogues() if d.purpose == "search"}
    assert searched == {made.manifests[1]["normaliser"]}


async def test_the_manifests_sum_to_the_ledgers_phase_learn_and_reading_for_likelihoods_is_in_it(
    tmp_path: Path,
) -> None:
    made = await taught(tmp_path / "a", iterations=3, method="isft-dpo")
    with ledger(tmp_path / "a") as book:
        calls = book.calls(texts=False)
        assert {c.phase for c in calls} == {"learn"}
        total = sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in calls)
        assert made.spent == total == sum(sum(m["spent"].values()) for m in made.manifests)
        scored = sum(c.input_tokens or 0 for c in calls if c.agent == READER)
        assert scored == sum(m["spent"]["score"] for m in made.manifests) > 0
        assert [(t.iteration, t.method, t.tokens) for t in book.trainings()] == [
            (k, m["training_method"], m["training"]["tokens"]) for k, m in enumerate(made.manifests)
        ]
        assert sorted(spent(book)) == [0, 1, 2]


def test_an_episodes_number_says_what_it_was_for() -> None:
    for place in ((0, "calibrate", 0), (3, "search", 23), (12, "accept", 1)):
        number = sample_of(*place)
        assert (iteration_of(number), purpose_of(number)) == place[:2]
    with pytest.raises(ConfigError, match="room"):
        sample_of(0, "generate", 10**6)


# ------------------------------------------------------------------------------- acceptance


async def test_a_model_that_is_not_surely_better_is_not_kept_and_the_next_iteration_starts_from_the_last(
    tmp_path: Path,
) -> None:
    room = Classroom()
    first = await taught(tmp_path / "a", room, 1)
    assert first.manifests[0]["accept"]["accepted"]
    room.worse = True  # trainings bring nothing from now on
    made = await taught(tmp_path / "a", room, 3)
    assert [m["model_out"] for m in made.manifests] == ["iter1"] * 3
    assert [m["accept"]["accepted"] for m in made.manifests] == [True, False, False]
    assert made.adapter == tmp_path / "a" / "iter1"


async def test_the_first_iteration_may_raise_tokens_as_long_as_the_score_stays(tmp_path: Path) -> None:
    room = Classroom()
    room.worse = True
    made = await taught(tmp_path / "a", room, 1)
    first = made.manifests[0]["accept"]
    assert first["reward"]["low"] is None or first["reward"]["low"] <= 0
    assert first["task"]["mean"] == 0 and first["accepted"]


async def test_accept_always_keeps_what_was_trained(tmp_path: Path) -> None:
    room = Classroom()
    room.worse = True
    made = await taught(tmp_path / "a", room, 2, accept="always")
    assert made.manifests[1]["model_out"] == "iter2" and made.manifests[1]["accept"]["reward"]["mean"] < 0


async def test_both_models_are_judged_on_the_same_items_by_one_constant(tmp_path: Path) -> None:
    made = await taught(tmp_path / "a", iterations=2)
    found = made.manifests[1]["accept"]
    assert found["normaliser"] == made.manifests[1]["normaliser"]
    assert found["before"]["items"] == found["after"]["items"] == len(VALIDATE.items)
    # What M_1 said when it was accepted is not paid for again.
    assert found["place"] == [0, 1]
    with ledger(tmp_path / "a") as book:
        greedy = [d for d in book.dialogues() if d.purpose == "accept"]
    assert len(greedy) == 3 * len(VALIDATE.items)


async def test_break_even_counts_all_learning_so_far_against_the_untrained_model(tmp_path: Path) -> None:
    made = await taught(tmp_path / "a", iterations=2)
    first, last = made.manifests[0]["accept"], made.manifests[1]["accept"]
    saved = first["before"]["total_tokens"] - last["after"]["total_tokens"]
    assert last["saved_per_item"] == pytest.approx(saved)
    assert last["break_even_items"] == pytest.approx(made.spent / saved)


# -------------------------------------------------------------------------------- selectors


@pytest.mark.parametrize("selector", ["random", "unfiltered"])
async def test_controls_train_on_as_many_dialogues_as_the_reward_chooses(
    selector: str, tmp_path: Path
) -> None:
    a = (await taught(tmp_path / "a", iterations=1)).manifests[0]["funnel"]
    b = (await taught(tmp_path / "b", iterations=1, selector=selector)).manifests[0]["funnel"]
    assert a["kept"] == b["kept"] and a["passed"] == b["passed"]
    rows = [(tmp_path / x / "learn/iteration-000/rows.jsonl").read_text() for x in "ab"]
    assert rows[0] != rows[1]


async def test_unfiltered_takes_wrong_dialogues_too(tmp_path: Path) -> None:
    await taught(tmp_path / "a", iterations=1, selector="unfiltered", share=100)
    assert "zebra" in (tmp_path / "a/learn/iteration-000/rows.jsonl").read_text()
    await taught(tmp_path / "b", iterations=1, share=100)
    assert "zebra" not in (tmp_path / "b/learn/iteration-000/rows.jsonl").read_text()


# --------------------------------------------------------------------- the same again, and resuming


async def test_the_same_seed_learns_the_same_and_another_seed_something_else(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        await taught(tmp_path / name, iterations=2, method="idpo", seed=seed)
    a, b, c = (manifests(tmp_path / name) for name in "abc")
    assert a == b != c
    trees = [(tmp_path / x / "learn/iteration-001/trees.jsonl").read_text() for x in "abc"]
    assert trees[0] == trees[1] != trees[2]


async def test_the_same_command_again_pays_nothing_and_more_iterations_go_on(tmp_path: Path) -> None:
    room = Classroom()
    made = await taught(tmp_path / "a", room, 1)
    asked = len(room.asked)
    again = await taught(tmp_path / "a", room, 1)
    assert len(room.asked) == asked and again.manifests == made.manifests and len(room.trained) == 1
    assert (await taught(tmp_path / "a", room, 2)).manifests[0] == made.manifests[0]


async def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    await taught(tmp_path / "a", iterations=1)
    with pytest.raises(ConfigError, match="threshold"):
        await taught(tmp_path / "a", iterations=1, threshold=0.6)


KILLED = """
import sys, anyio
from pathlib import Path
from agentcomm.dialogue import iteration
from tests.dialogue.classroom import Classroom, lesson
out, kill_at, where = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
room = Classroom(out.with_suffix(".log"), kill_at=kill_at, die_in_training=where == "training")
if where == "rows":
    def die(path, rows):
        path.write_text("half a ro")
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    iteration.write_rows = die
if where == "manifest":
    def die(path, data):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    iteration.write_json = die
anyio.run(lesson(out, room, method="idpo").run, 2)
"""


def killed(out: Path, kill_at: int, where: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(out), str(kill_at), where]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], int, str]:
    import anyio

    out = tmp_path_factory.mktemp("whole") / "a"
    room = Classroom()
    anyio.run(lesson(out, room, method="idpo").run, 2)
    files = "".join(p.read_text() for p in sorted(out.glob("learn/*/*.jsonl")))
    return manifests(out), len(room.asked), files


# Calls 1 to about 90 are the first iteration's, the rest the trees'.
@pytest.mark.parametrize(
    ("where", "kill_at"),
    [("generation", 20), ("acceptance", 75), ("tree", 120), ("rows", 0), ("training", 0), ("manifest", 0)],
)
async def test_sigkill_anywhere_leaves_a_run_that_ends_with_the_manifests_of_one_that_was_not_interrupted(
    where: str, kill_at: int, uninterrupted: tuple[list[dict[str, Any]], int, str], tmp_path: Path
) -> None:
    out = tmp_path / "a"
    process = killed(out, kill_at, where)
    assert process.returncode == -9, process.stderr
    paid = len(out.with_suffix(".log").read_text().splitlines())
    room = Classroom()
    await lesson(out, room, method="idpo").run(2)
    expected, calls, files = uninterrupted
    assert manifests(out) == expected
    assert "".join(p.read_text() for p in sorted(out.glob("learn/*/*.jsonl"))) == files
    # Up to four calls were in flight.
    assert calls <= paid + len(room.asked) <= calls + 4
    with ledger(out) as book:
        assert sum(sum(m["spent"].values()) for m in expected) == sum(
            (c.input_tokens or 0) + (c.output_tokens or 0) for c in book.calls(texts=False)
        )


# ------------------------------------------------------------------------------- bad input


def refuse(request: ChatRequest) -> Any:
    raise BackendError("the prompt has 9,000 tokens, the model holds 2,048", kind="too_long")


def broken(name: str, script: Any) -> Any:
    class Room(Classroom):
        def serve(self, ref: ModelRef) -> Scripted:
            return Scripted(script, name=name, max_concurrency=4)

    return Room()


async def test_an_item_to_score_is_not_learned_from(tmp_path: Path) -> None:
    scored = load_task(
        "records", {"split": "score", "limit": 3, "specialists": 2, "by": "attribute", "hops": 2}
    )
    with pytest.raises(TaskError, match="score"):
        Learning(team, scored, scored.items, (), ModelRef("base"), Classroom(), tmp_path / "a")
    with pytest.raises(TaskError, match="score"):
        Learning(team, LEARN, LEARN.items, scored.items, ModelRef("base"), Classroom(), tmp_path / "a")


async def test_items_in_both_splits_or_none_to_accept_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="both splits"):
        Learning(team, LEARN, LEARN.items, LEARN.items, ModelRef("base"), Classroom(), tmp_path / "a")
    with pytest.raises(TaskError, match="accept"):
        Learning(team, LEARN, LEARN.items, (), ModelRef("base"), Classroom(), tmp_path / "a")


async def test_contexts_that_overflow_end_learning_with_what_the_server_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="9,000 tokens"):
        await taught(tmp_path / "a", broken("b", refuse), 1)
    # Not after all of them: a larger learning would have paid for every item.
    room = broken("b", refuse)
    with pytest.raises(RunError, match="the first 8 dialogues all failed .*9,000 tokens"):
        await taught(tmp_path / "b", room, 1, formats=())


async def test_a_failed_call_takes_its_dialogue_out_of_the_group_and_is_no_zero(tmp_path: Path) -> None:
    room = Classroom()
    failed: list[str] = []

    def say(request: ChatRequest) -> Any:
        if not failed and request.temperature == 0.3:
            failed.append(request.id)
            return BackendError("hiccup", kind="broken_reply")
        return speak(request, 0)

    room.serve = lambda ref: Scripted(say, name="s", max_concurrency=1)  # type: ignore[method-assign]
    made = await taught(tmp_path / "a", room, 1)
    assert made.manifests[0]["failed"] == 1
    with ledger(tmp_path / "a") as book:
        (failure,) = [e for e in book.episodes() if e.failures]
        group = [d for d in book.dialogues(item=failure.item) if d.purpose == "generate"]
    (without,) = [d for d in group if d.total is None]
    assert (without.item, without.sample) == (failure.item, failure.sample) and without.task is None
    assert len([d for d in group if d.total is not None]) == SMALL["samples"] - 1
    # It is final: the same command doesn't play it again.
    assert (await taught(tmp_path / "a", room, 1)).manifests == made.manifests


async def test_dialogues_that_never_end_nor_mark_an_answer_teach_nothing_and_say_so(tmp_path: Path) -> None:
    made = await taught(tmp_path / "a", broken("b", lambda request: "hm, let me see what comes next"), 1)
    (m,) = made.manifests
    assert m["unmarked"] == m["dialogues"] == 18 and m["funnel"]["kept"] == 0 and m["training"] is None
    assert (
        "no dialogue marked an answer" in m["nothing"] and m["model_out"] == "base" and made.adapter is None
    )
    with ledger(tmp_path / "a") as book:  # two rounds of two agents, and no more
        assert max(c.round for c in book.calls()) == 2
        assert {d.task for d in book.dialogues()} == {0.0}


def cut_off(who: str) -> Any:
    """An agent whose messages a limit on tokens cuts off, after the mark."""

    def say(request: ChatRequest) -> Any:
        text = speak(request, 0)
        named = f"You are {who}" in "\n".join(m.content for m in request.messages)
        return Reply(text + " and then I was go", Usage(50, 20), "length") if named else text

    return broken("c", say)


async def test_a_message_that_a_limit_cut_off_is_no_row_of_a_dialogue_that_is_imitated(
    tmp_path: Path,
) -> None:
    made = await taught(tmp_path / "a", cut_off("Bob"), 1)
    found = read_rows(tmp_path / "a/learn/iteration-000/rows.jsonl")
    assert found and {r.meta.agent for r in found} == {"alice"}
    funnel = made.manifests[0]["funnel"]
    assert funnel["cut"] > 0 and funnel["rows"] == len(found)


async def test_a_message_that_a_limit_cut_off_is_never_the_preferred_one(tmp_path: Path) -> None:
    more = {"method": "idpo", "formats": (), "least": 0.1, "gap": 0.0, "expansions": 4}
    whole = await taught(tmp_path / "whole", None, 1, **more)
    assert {r.meta.agent for r in read_rows(tmp_path / "whole/learn/iteration-000/rows.jsonl")} == {
        "alice",
        "bob",
    }
    assert whole.manifests[0]["funnel"]["cut"] == 0
    made = await taught(tmp_path / "a", cut_off("Bob"), 1, **more)
    assert {r.meta.agent for r in read_rows(tmp_path / "a/learn/iteration-000/rows.jsonl")} <= {"alice"}
    assert made.manifests[0]["funnel"]["cut"] > 0


async def test_a_dialogue_whose_rounds_ran_out_is_told_from_one_that_agreed(tmp_path: Path) -> None:
    def say(request: ChatRequest) -> Any:
        prompt = "\n".join(m.content for m in request.messages)
        return (
            "the very one <A>cat</A>" if (request.seed or 0) % 2 or "You are Bob" in prompt else "it may be"
        )

    made = await taught(tmp_path / "a", broken("b", say), 1)
    lines = (tmp_path / "a/learn/iteration-000/dialogues.jsonl").read_text().splitlines()
    told = [d for d in map(json.loads, lines) if d["purpose"] == "generate"]
    agreed = [len({m[0] for m in d["messages"] if "<A>" in m[1]}) == 2 for d in told]
    assert [d["agreed"] for d in told] == agreed and 0 < sum(agreed) < len(agreed)
    assert made.manifests[0]["agreed"] == sum(agreed)


async def test_where_everything_was_cut_off_nothing_is_learned_and_the_reason_is_said(tmp_path: Path) -> None:
    made = await taught(tmp_path / "a", cut_off(""), 1)
    (m,) = made.manifests
    assert m["training"] is None and m["funnel"]["rows"] == 0
    assert "cut off by the limit on tokens" in m["nothing"] and "raise the agents' max_tokens" in m["nothing"]


async def test_equal_rewards_and_pairs_below_the_thresholds_are_results(tmp_path: Path) -> None:
    same = broken("b", lambda request: "the very same words <A>zebra</A>")
    made = await taught(tmp_path / "a", same, 1, readability=Off(), formats=())
    assert "same reward" in made.manifests[0]["nothing"]
    made = await taught(tmp_path / "b", iterations=2, method="idpo", least=9.0)
    assert "no pair" in made.manifests[1]["nothing"] and made.manifests[1]["model_out"] == "iter1"
    made = await taught(tmp_path / "c", iterations=1, threshold=9.0)
    assert "above the threshold 9.0" in made.manifests[0]["nothing"]


async def test_teams_that_speak_at_once_or_over_channels_are_refused(tmp_path: Path) -> None:
    from agentcomm.channels import from_words

    def learn(graph: ac.AgentGraph) -> None:
        Learning(lambda i: graph, LEARN, LEARN.items, VALIDATE.items, ModelRef("b"), Classroom(), tmp_path)

    both = [ac.Agent("a"), ac.Agent("b"), ac.Agent("judge")]
    beside = ac.AgentGraph(both, [("a", "judge"), ("b", "judge")], decision="judge")
    with pytest.raises(ConfigError, match="speak at the same time"):
        learn(beside)
    with pytest.raises(ConfigError, match="channel"):
        learn(team("").with_channel(from_words("truncate:tokens=5")))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"samples": 1}, "at least 2"),
        ({"method": "ppo"}, "isft"),
        ({"selector": "best"}, "unfiltered"),
        ({"accept": "never"}, "always"),
        ({"temperature": 0.0}, "all the same"),
        ({"formats": ("morse",)}, "morse"),
        ({"calibrate": 0}, "calibrate"),
        ({"order": "mine"}, "paper, code"),
        ({"pair_selector": "best"}, "pair selectors: q, gap"),
        ({"share": 0}, "share=0 percent"),
        ({"pair_share": 200}, "pair_share=200"),
        ({"drop_best": 100}, "drop_best=100"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"quantile": 3.0}, "quantile=3.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        LearnConfig(**{**SMALL, **more})


async def test_a_limit_stops_learning_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    from dataclasses import replace

    from agentcomm.ledger.limits import Limits

    stopped = lesson(tmp_path / "a", Classroom())
    stopped.options = replace(stopped.options, limits=Limits(calls=20))
    with pytest.raises(ConfigError, match="nothing is paid twice"):
        await stopped.run(1)
    room = Classroom()
    made = await taught(tmp_path / "a", room, 1)
    whole = Classroom()
    assert made.manifests == (await taught(tmp_path / "b", whole, 1)).manifests
    assert len(room.asked) == len(whole.asked) - 20


# ------------------------------------------------------------------------------------ parts


async def test_a_dialogue_goes_on_from_a_node_and_its_beginning_costs_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    def say(request: ChatRequest) -> str:
        asked.append("\n".join(m.content for m in request.messages))
        return f"message {len(asked)} of this one dialogue"

    with Ledger.in_memory() as book:
        async with Stage(
            book,
            LEARN,
            Scripted(say),
            RunOptions(executor="plain", temperature=0.7),
            model_name="base",
            config=REWARD,
            readability=Letters(),
        ) as stage:
            item = LEARN.items[0]
            (whole,) = await stage.group([Ask(item, team(""), 0, "search")], 50.0)
            assert [s.agent for s in whole.said] == ["alice", "bob", "alice", "bob"]
            paid = len(book.calls())
            (more,) = await stage.group([Ask(item, team(""), 0, "search", 1, before=whole.spoken[:2])], 50.0)
    assert more.said[:2] == whole.said[:2] and more.said[2:] != whole.said[2:]
    assert len(book.calls() if False else asked) == 6 and paid == 5  # 4 messages and what was read of them
    assert "message 2 of this one dialogue" in asked[4] and "message 3" not in asked[4]
    assert more.tokens["message"] == 6 * 4 and math.isfinite(more.terms.total if more.terms else math.nan)


async def test_the_frozen_model_reads_a_message_without_its_marks_and_equal_ones_once(tmp_path: Path) -> None:
    reader = Letters()
    await taught(tmp_path / "a", iterations=1, readability=reader)
    assert reader.texts and not [t for t in reader.texts if "<A>" in t]


async def test_a_dialogue_whose_likelihood_failed_is_never_selected(tmp_path: Path) -> None:
    class Deaf(Letters):
        def read(self, texts: Any) -> Any:
            return super().read(texts)._replace(nlls=[math.nan] * len(texts))

    made = await taught(tmp_path / "a", iterations=1, readability=Deaf())
    assert made.manifests[0]["funnel"]["selectable"] == 0
    with ledger(tmp_path / "a") as book:
        rows = [d for d in book.dialogues() if d.purpose == "generate"]
    assert all(not d.selectable and math.isnan(d.nlls[0] or 0.0) for d in rows)
    # Parrots have a loss term of their own, 0; the others' is not known, and so is their reward.
    assert {d.total is None for d in rows if "parrot" not in d.guards} == {True}


# ----------------------------------------------------------------------------------- export


async def test_rows_are_exported_for_training_elsewhere_whatever_serves_the_model(tmp_path: Path) -> None:
    model = Scripted(lambda request: speak(request, 0), max_concurrency=4)
    for method, kind in (("isft", 1), ("idpo", 2)):
        out = tmp_path / method
        learning = Learning(
            team,
            LEARN,
            LEARN.items,
            (),
            ModelRef("scripted"),
            Elsewhere(model),
            out,
            LearnConfig(
                **{**SMALL, "method": method, "accept": "always", "formats": () if kind == 2 else ("json",)}
            ),
            Letters(),
        )
        manifest = await learning.export(out / "rows.jsonl")
        found = read_rows(out / "rows.jsonl")
        assert len(found) == manifest["funnel"]["rows"] > 0 and len(found[0].texts) == kind
        assert not (out / "iter1").exists()


async def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    model = Scripted(default="hm")
    config = LearnConfig(**{**SMALL, "accept": "always"})
    learning = Learning(
        team, LEARN, LEARN.items, (), ModelRef("s"), Elsewhere(model), tmp_path / "a", config, Off()
    )
    with pytest.raises(ConfigError, match="marked an answer"):
        await learning.export(tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


async def test_dialogues_that_were_learned_from_are_those_that_evaluate_would_have_played(
    tmp_path: Path,
) -> None:
    """Greedy dialogues of acceptance say what ``evaluate`` says: prompts and sampling are the same."""
    room = Classroom()
    made = await taught(tmp_path / "a", room, 1)
    run = await evaluate(
        team(""), VALIDATE, room.serve(ModelRef("base")), options=RunOptions(executor="plain")
    )
    scores = [e.score for e in run.episodes]
    assert made.manifests[0]["accept"]["before"]["task"] == sum(s for s in scores if s) / len(scores)


def test_records_is_the_two_hop_task_an_oracle_with_one_view_is_at_chance_and_with_both_at_one() -> None:
    task = items("validate", 200)
    alone = both = 0.0
    for item in task.items:
        city, pet = item.views["s1"].splitlines(), item.views["s2"].splitlines()
        needed = item.metadata["needed"]
        assert set(needed) == {"s1", "s2"}
        # With one share, every person in it is as likely as any other.
        candidates = [line for line in (*city, *pet) if item.answer in line]
        assert len(candidates) == 1
        alone += 1 / len(pet)
        who = next(n for n in {x.split()[0] for x in city} if _points(item.question, n, city + pet))
        told = [line for line in (*city, *pet) if line.startswith(who + " ")]
        both += any(item.answer in line for line in told) and len(told) == 2
    assert alone / len(task.items) == pytest.approx(0.25)
    assert both == len(task.items)


def _points(question: str, name: str, lines: list[str]) -> bool:
    return any(
        line.startswith(name + " ") and line.removeprefix(name + " ").rstrip(".") in question
        for line in lines
    )


def test_the_reward_of_a_learning_is_the_one_it_was_given() -> None:
    assert LearnConfig(**SMALL).reward == RewardConfig(min_tokens=2)
