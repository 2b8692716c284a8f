"""agentcomm tune: formats side by side on a real team, resumable, clear about what it can't do."""

import json
from pathlib import Path

import anyio
import pytest

from agentcomm.dialogue.formats import POOL
from agentcomm.dialogue.play import Team, dialogue
from agentcomm.dialogue.policy import load as load_policy
from agentcomm.errors import TaskError
from agentcomm.evaluation.splits import hash_of
from agentcomm.ledger.limits import Limits
from agentcomm.ledger.rows import CallRow
from agentcomm.loading import load_graph, load_task
from tests.command import agentcomm
from tests.watching import Watching

MODEL = {"by_role": {"JSON": "<A>x</A> in three words"}, "default": "<A>x</A>" + " word" * 30}
"""Says the same every time: much in natural language, little when told to write JSON."""

SMALL = ["--rungs", "2,3", "--calibrate", "2", "--accept", "3", "--min-tokens", "1", "--search", "json,code"]
TASK = ["-T", "specialists=2", "-T", "by=attribute", "-T", "hops=2"]


def test_a_search_prints_formats_side_by_side_and_continues_without_paying_twice(tmp_path: Path) -> None:
    script = tmp_path / "model.json"
    script.write_text(json.dumps(MODEL))
    command = ["tune", "information_exchange", "records", "--model", f"scripted/{script}", *SMALL, *TASK]
    first = agentcomm(*command, "--out", str(tmp_path / "f"))
    assert first.code == 0, first.err
    for word in ("natural", "json", "code", "reward", "final"):
        assert word in first.out
    # Nobody is right here, so shorter is better and no score is lost.
    assert "use json" in first.out and POOL["json"].instruction in " ".join(first.out.split())
    result = json.loads((tmp_path / "f" / "result.json").read_text())
    assert result["adopted"] == "json" and result["paid_tokens"] == result["spent"]
    again = agentcomm(*command, "--out", str(tmp_path / "f"), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["paid_tokens"] == result["paid_tokens"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["solver_critic_judge"], "takes the option instruction"),
        (["information_exchange", "--search", "morse"], "unknown formats morse"),
        (["information_exchange", "--rungs", "many"], "write numbers"),
        (["information_exchange", "-G", "instruction=x"], "leave it out"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    graph, *rest = arguments
    made = agentcomm("tune", graph, "records", "--model", "mock/echo", *SMALL, *TASK, *rest)
    assert made.code == 2 and says in " ".join(made.err.split())


def test_a_search_that_would_run_out_of_items_is_refused_before_it_asks_anything(tmp_path: Path) -> None:
    few = tmp_path / "few.py"
    few.write_text(
        "import dataclasses\nfrom agentcomm.loading import load_task\n\n"
        "def task(split='score', limit=None):\n"
        "    made = load_task('records', {'split': split, 'limit': 2 if split == 'validate' else limit,\n"
        "                                 'specialists': 2, 'by': 'attribute', 'hops': 2})\n"
        "    return dataclasses.replace(made, name='few')\n"
    )
    words = ["tune", "information_exchange", str(few), "--model", "mock/echo", "--out", str(tmp_path / "f")]
    made = agentcomm(*words, *SMALL)
    assert made.code == 2 and not (tmp_path / "f").exists()
    assert "plays 3 validate items; few has 2: lower --accept" in " ".join(made.err.split())


def test_what_failed_has_to_be_paid_back_too(tmp_path: Path) -> None:
    bob = [{"error": "refused"}]  # once, when Alice has spoken and was paid
    path = tmp_path / "model.json"
    path.write_text(
        json.dumps(
            {**MODEL, "by_role": {**MODEL["by_role"], "code": {"error": "refused"}, "You are Bob": bob}}
        )
    )
    folder = tmp_path / "f"
    words = ["tune", "information_exchange", "records", "--model", f"scripted/{path}", *SMALL, *TASK]
    made = agentcomm(*words, "--out", str(folder), "--retries", "1", "--json")
    assert made.code == 0, made.err
    assert any(s["failed"] for s in made.json["standings"])
    assert made.json["spent"] == made.json["paid_tokens"]


def test_formats_are_not_chosen_on_items_to_score(tmp_path: Path) -> None:
    task = load_task("records", {"limit": 4, "split": "score"})
    with pytest.raises(TaskError, match="score"):
        Team(lambda i: load_graph("information_exchange"), task, task.items, (), "mock/echo", tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("slots", "limits", "most"), [(6, Limits(), 6), (3, Limits(), 2), (6, Limits(calls=999), 2)]
)
async def test_formats_go_beside_each_other_while_the_model_has_slots_and_no_limit_is_shared(
    slots: int, limits: Limits, most: int, tmp_path: Path
) -> None:
    shared = {"specialists": 2, "by": "attribute", "hops": 2, "limit": 2}
    learn, validate = (load_task("records", {**shared, "split": s}) for s in ("learn", "validate"))
    model = Watching(default="x", max_concurrency=slots, latency_s=0.005)
    team = Team(
        lambda instruction: load_graph("information_exchange", {"instruction": instruction}),
        learn, learn.items, validate.items, model, tmp_path, limits=limits,
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        for format in ("json", "code", "logic"):
            group.start_soon(team.play, POOL[format], range(2), "search")
    assert model.most == most and len(team.paid) == 3 * 2 * 6


def call(agent: str, round: int, **more: object) -> CallRow:
    base = {"id": f"{agent}{round}", "item": "i", "sample": 0, "round": round, "agent": agent, "attempt": 1}
    base |= {"phase": "learn", "model": "m", "request_id": "r", "started_at": 0.0, "reply_text": "hm"}
    return CallRow(**{**base, **more})  # type: ignore[arg-type]


def test_a_dialogue_counts_what_was_written_and_read_and_unknown_is_missing() -> None:
    turns = [
        call("a", 1, input_tokens=50, output_tokens=10, reasoning_tokens=4),
        call("b", 1, input_tokens=60, output_tokens=20, finish_reason="length"),
    ]
    made = dialogue(1.0, turns)
    assert made.tokens == {"completion": 30, "message": 26, "total": 140}
    assert [m.capped for m in made.messages] == [False, True]
    assert dialogue(1.0, [call("a", 1, output_tokens=5)]).tokens == {"completion": 5, "message": 5}
    assert dialogue(1.0, [call("a", 1)]).tokens == {}


# ------------------------------------------------------------------------ the other searches

LONG = "<A>x</A>" + " word" * 40


def tuned(tmp_path: Path, script: dict[str, object], *more: str) -> tuple[Path, list[str]]:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(script))
    folder = tmp_path / "f"
    words = ["tune", "information_exchange", "records", "--model", f"scripted/{path}", *TASK]
    return folder, [*words, "--min-tokens", "1", "--out", str(folder), *more]


def test_the_bill_is_announced_before_anything_is_asked(tmp_path: Path) -> None:
    _, words = tuned(tmp_path, MODEL)
    made = agentcomm(*words, "--run-limit", "calls=1")
    assert made.code == 2 and "limit" in made.err
    # 430 dialogues of two agents in three rounds.
    assert made.err.index("at most 430 dialogues of 6 calls: 2,580 calls") < made.err.index("limit")


def test_a_limit_covers_the_whole_search_and_a_higher_one_continues(tmp_path: Path) -> None:
    folder, words = tuned(
        tmp_path, MODEL, "--search", "json", "--rungs", "2", "--calibrate", "2", "--accept", "2"
    )
    struck = agentcomm(*words, "--run-limit", "calls=7")
    assert struck.code == 2 and "limit" in struck.complaint
    ledgers = [p.parent.name for p in folder.glob("*/ledger.sqlite")]
    assert len(ledgers) == 2  # four calls to calibrate, three of the next four
    done = agentcomm(*words, "--run-limit", "calls=99", "--json")
    assert done.code == 0, done.err
    again = agentcomm(*words, "--json")
    assert again.json["paid_tokens"] == done.json["paid_tokens"]


def test_what_was_adopted_is_a_policy_for_the_agents_that_were_told_it(tmp_path: Path) -> None:
    folder, words = tuned(
        tmp_path, MODEL, "--search", "json", "--rungs", "3", "--calibrate", "2", "--accept", "32"
    )
    assert agentcomm(*words).code == 0
    policy = load_policy(folder)
    plain = load_graph("information_exchange")
    told = load_graph("information_exchange", {"instruction": POOL["json"].text})
    assert policy.apply(plain) == told and set(policy.formats) == {"alice", "bob"}
    learn = load_task(
        "records", {"limit": 3, "split": "learn", "specialists": 2, "by": "attribute", "hops": 2}
    )
    assert set(map(hash_of, learn.items)) <= set(policy.learned_from) and policy.spent


def test_best_of_n_says_what_it_costs_at_every_use(tmp_path: Path) -> None:
    folder, words = tuned(
        tmp_path, {"default": "<A>x</A>"}, "--search", "best-of-n", "--samples", "3", "--accept", "4"
    )
    made = agentcomm(*words)
    assert made.code == 0, made.err
    assert "Keep one dialogue" in made.out and "at 3.0 times the tokens, at every use" in " ".join(
        made.out.split()
    )
    assert "never paid back" in " ".join(made.out.split())
    result = json.loads((folder / "result.json").read_text())
    assert (result["dialogues"], result["items"], result["break_even_items"]) == (12, 4, None)
    assert result["paid_tokens"] == result["spent"] and not (folder / "policy.json").exists()


def test_a_memory_is_saved_with_each_agents_own_side(tmp_path: Path) -> None:
    """The model talks at length until it is shown how it wrote before."""
    script = {"by_role": {"An earlier question": "<A>Oslo</A>"}, "default": "<A>Oslo</A>" + " word" * 90}
    sizes = ["--search", "memory", "--calibrate", "24", "--rungs", "4", "--accept", "32"]
    folder, words = tuned(tmp_path, script, *sizes)
    task = load_task(
        "records", {"limit": 24, "split": "learn", "specialists": 2, "by": "attribute", "hops": 2}
    )
    assert any(i.answer == "Oslo" for i in task.items)
    made = agentcomm(*words)
    assert made.code == 0, made.err
    result = json.loads((folder / "result.json").read_text())
    assert result["adopted"].startswith("memory-") and result["paid_tokens"] == result["spent"]
    policy = load_policy(folder)
    graph = policy.apply(load_graph("information_exchange"))
    assert (
        "An earlier question: " in graph.by_name["bob"].role
        and "You wrote: <A>Oslo</A>" in graph.by_name["bob"].role
    )
    assert "Ada lives" not in graph.by_name["bob"].role


def test_with_nothing_good_to_remember_memory_says_so(tmp_path: Path) -> None:
    _, words = tuned(
        tmp_path, {"default": "hm"}, "--search", "memory", "--calibrate", "3", "--rungs", "2", "--accept", "2"
    )
    made = agentcomm(*words)
    assert made.code == 2 and "good enough to remember" in made.complaint


REFLECT = [
    "--search",
    "reflect",
    "--calibrate",
    "3",
    "--dialogues",
    "40",
    "--reflections",
    "2",
    "--accept",
    "32",
]


def test_reflection_rewrites_an_example_and_its_tokens_count(tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    script = {
        "by_role": {
            "Write a better example": "<example>pump 3 dry</example>",
            "Example: pump 3 dry": "<A>x</A>",
        },
        "default": LONG,
    }
    folder, words = tuned(tmp_path, script, *REFLECT)
    made = agentcomm(*words)
    assert made.code == 0, made.err
    result = json.loads((folder / "result.json").read_text())
    assert result["adopted"].startswith("natural_terse-") and "pump 3 dry" in " ".join(made.out.split())
    assert result["paid_tokens"] == result["spent"]  # what the writing model took is in both
    assert "calls, 2 of them by the model that writes" in made.err
    assert "pump 3 dry" in load_policy(folder).formats["alice"]
    again = agentcomm(*words, "--json")
    assert again.code == 0 and again.json["paid_tokens"] == result["paid_tokens"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--search", "best-of-n", "--temperature", "0"], "same dialogue again"),
        (["--search", "best-of-n", "--samples", "1"], "at least 2"),
        (["--search", "memory", "--count", "message"], "leave --count at total"),
        (["--search", "reflect", "--start", "natural"], "no example to rewrite"),
        (["--search", "reflect", "--start", "morse"], "unknown formats morse"),
        (["--search", "reflect", "--dialogues", "5"], "don't last for one mutation"),
        (["--readability", "shakespeare"], "readability 'shakespeare'"),
    ],
)
def test_searches_refuse_what_makes_no_sense_in_one_line(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    _, words = tuned(tmp_path, MODEL, *arguments)
    made = agentcomm(*words)
    assert made.code == 2 and says in made.complaint


def test_readability_is_rewarded_where_somebody_reads(tmp_path: Path) -> None:
    _, words = tuned(
        tmp_path,
        MODEL,
        "--search",
        "json",
        "--rungs",
        "2",
        "--calibrate",
        "2",
        "--accept",
        "2",
        "--readability",
        "ngram",
    )
    made = agentcomm(*words, "--json")
    assert made.code == 0, made.err
    assert made.json["reward"]["loss_weight"] == 1.0
    assert all(s["nll"] is not None and s["nll"] > 0 for s in made.json["standings"])
