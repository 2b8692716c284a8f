"""``agentcomm prune`` and ``eval --policy``: from a graph and a task to a smaller team, from the command line."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from agentcomm.pruning.fitting import ABOUT
from tests.command import Done, agentcomm, finish, start, wait_until, write

TEAM = """
import agentcomm as ac

def graph(extra: bool = False):
    agents = [ac.Agent("ann", role="Be bold."), ac.Agent("bob", role="Be brief."), ac.Agent("judge", role="Decide.")]
    edges = [("ann", "bob"), ("ann", "judge"), ("bob", "judge")]
    if extra:
        agents.insert(2, ac.Agent("cy"))
        edges.append(("cy", "judge"))
    return ac.AgentGraph(agents, edges, decision="judge")
"""

SUMS = """
import agentcomm as ac

def task(split: str = "score", limit: int = 12):
    if split == "learn" and limit == 11:
        raise ac.UserError("no")
    start = {"learn": 0, "validate": 100, "score": 200}[split]
    items = [ac.Item(f"{split}{i}", f"What is {i} plus {i}?", str(2 * i), metadata={"split": split})
             for i in range(start, start + limit)]
    return ac.Task("sums", items, lambda item, text: ac.Score(float("Be brief" not in text)))
"""

METHOD = ("--method", "gptswarm", "--set", "iterations=4", "--set", "batch=4")


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return write(tmp_path, "team.py", TEAM)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return write(tmp_path, "sums.py", SUMS)


def prune(team: Path, sums: Path, *more: str | Path, out: str = "p") -> Done:
    words = [
        "prune",
        team,
        sums,
        "--model",
        "mock/echo",
        "--max-tokens",
        "20",
        "--out",
        out,
        "--rollouts",
        "30",
    ]
    return agentcomm(*words, *more)


def test_it_ends_with_what_was_cut_and_what_it_saved_and_the_policy_is_used(team: Path, sums: Path) -> None:
    done = prune(team, sums, *METHOD, "--price", "1")
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    for said in (
        "agent",
        "kept",
        "before",
        "after",
        "saved",
        "tokens an item:",
        "learning:",
        "from the cache",
    ):
        assert said in done.out, said
    assert f"agentcomm eval {team} {sums} --policy p" in done.out
    assert {p.name for p in Path("p").iterdir()} == {"policy.json", "weights.safetensors", "learning"}
    assert (
        agentcomm(
            "eval", team, sums, "--model", "mock/echo", "--max-tokens", "20", "--out", "runs/whole"
        ).code
        == 0
    )
    used = agentcomm(
        "eval",
        team,
        sums,
        "--model",
        "mock/echo",
        "--max-tokens",
        "20",
        "--out",
        "runs/cut",
        "--policy",
        "p",
        "--controls",
        "complete,untrained",
        "--json",
    )
    assert used.code == 0, used.err
    config = json.loads(Path("runs/cut/config.json").read_text())
    assert config["topology"]["method"] == "gptswarm"
    told = agentcomm("compare", "runs/whole", "runs/cut")
    assert told.code == 0 and "learning its policy took" in told.out
    beside = agentcomm("compare", "runs/whole", "runs/cut", "--controls", "--json").json
    assert [r["run"] for r in beside["runs"]] == ["whole", "cut", "cut-complete"]
    assert beside["controls"]["run"] == "cut" and "random" in beside["controls"]["missing"]
    assert agentcomm("compare", "runs/whole", "runs/cut", "--amortise", "0").code == 2
    assert agentcomm("view", "runs/cut", "--out", "report.html").code == 0
    assert agentcomm("ledger", "p/learning", "--json").code == 0


def test_json_is_one_object_with_everything(team: Path, sums: Path) -> None:
    done = prune(team, sums, *METHOD, "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["spent"]["rollouts"] <= 30
    assert told["spent"]["tokens"] == told["learning_tokens"] > 0
    assert told["spent"]["saved_calls"] > 0
    assert told["kept_on"] == {"split": "validate", "items": 12}
    assert {a["name"] for a in told["agents"]} == {"ann", "bob"}
    assert {e["name"] for e in told["edges"]} == {"ann->bob", "ann->judge", "bob->judge"}
    for row in (*told["agents"], *told["edges"]):
        assert row["saved"] == pytest.approx(row["before"] - row["after"])
    assert told["tokens_after"] <= told["tokens_before"]


def test_the_same_command_again_pays_nothing(team: Path, sums: Path) -> None:
    first, second = prune(team, sums, *METHOD, "--json"), prune(team, sums, *METHOD, "--json")
    assert second.code == 0, second.err
    a, b = first.json, second.json
    assert b["spent"].pop("reused") > a["spent"].pop("reused")
    a.pop("seconds"), b.pop("seconds")
    assert a == b


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_was_cut_off_goes_on(how: signal.Signals, team: Path, sums: Path, tmp_path: Path) -> None:
    slow = write(tmp_path, "replies.json", '{"default": "hm", "latency_s": 0.05}')
    words = [
        "prune",
        str(team),
        str(sums),
        *METHOD,
        "--model",
        f"scripted/{slow}",
        "--out",
        "p",
        "--rollouts",
        "30",
    ]
    process = start(*words, "--concurrency", "2", cwd=tmp_path)
    records = tmp_path / "p" / "learning" / "records.jsonl"
    wait_until(lambda: records.exists() and records.read_bytes().count(b"\n") > 7, process, 300)
    process.send_signal(how)
    cut = finish(process, 300)
    if how == signal.SIGINT:
        assert cut.code == 130 and "--out p continues" in cut.err and "Traceback" not in cut.err
    kept = records.read_bytes().count(b"\n")
    assert kept < 30 and not (tmp_path / "p" / "policy.json").exists()
    done = agentcomm(*words, "--json")
    assert done.code == 0, done.err
    assert done.json["spent"]["reused"] >= kept


def test_what_was_cut_off_while_confirming_goes_on(team: Path, sums: Path, tmp_path: Path) -> None:
    slow = write(tmp_path, "replies.json", '{"default": "hm", "latency_s": 0.05}')
    words = ["prune", str(team), str(sums), "--method", "random", "--confirm", "12", "--seed", "1"]
    words += ["--model", f"scripted/{slow}", "--out", "p", "--rollouts", "12"]
    process = start(*words, "--concurrency", "2", cwd=tmp_path)
    records = tmp_path / "p" / "learning" / "confirmed.jsonl"
    wait_until(lambda: records.exists() and records.read_bytes().count(b"\n") > 3, process, 300)
    process.kill()
    finish(process, 300)
    kept = records.read_bytes().count(b"\n")
    assert kept < 24 and not (tmp_path / "p" / "policy.json").exists()
    done = agentcomm(*words, "--json")
    assert done.code == 0, done.err
    assert done.json["spent"]["reused"] >= kept
    assert done.json["confirmation"]["items"] == 12


def test_what_loses_on_validate_items_is_not_adopted_and_the_command_says_so(
    team: Path, tmp_path: Path
) -> None:
    # On learn items everybody is right, so bob's tokens can be saved; on others he is needed.
    replies = write(tmp_path, "replies.json", '{"by_role": {"From bob": "heard bob"}, "default": "hm"}')
    fickle = write(
        tmp_path,
        "fickle.py",
        SUMS.replace('"Be brief" not in text', '"bob" in text or item.metadata["split"] == "learn"'),
    )
    more = ("--model", f"scripted/{replies}", "--method", "frugal", "--rollouts", "60")
    done = prune(team, fickle, *more)
    assert done.code == 0, done.err
    assert done.out.startswith("not adopted, the whole team is kept: on 12 validate items")
    assert "worse by more than 2 points" in " ".join(done.out.split())
    assert "frugal, not adopted for scripted/" in done.out and "before" in done.out
    assert "what was learned: p/refused" in done.out and "paid back" not in done.out
    assert "be confirmed on 12 validate items" in done.err
    card = json.loads(Path("p/policy.json").read_text())["card"]
    assert any(n.startswith("not adopted") for n in card["notes"])
    assert any(
        n.startswith("what was chosen had itself never been tried; the whole team") for n in card["notes"]
    )
    told = prune(team, fickle, *more, "--json").json
    assert told["adopted"] is False and told["confirmation"]["difference"]["mean"] < -0.5
    allowed = prune(team, fickle, *more, "--confirm", "0", "--json").json
    assert allowed["adopted"] is True and any("not confirmed" in n for n in allowed["notes"])


def test_items_it_has_learned_from_are_never_scored(team: Path, sums: Path) -> None:
    assert prune(team, sums, *METHOD).code == 0
    done = agentcomm(
        "eval", team, sums, "--model", "mock/echo", "--policy", "p", "--split", "learn", "--out", "r"
    )
    assert done.code == 2 and "used for learning" in done.complaint


def test_a_policy_that_does_not_fit_is_refused_in_one_sentence(team: Path, sums: Path) -> None:
    assert prune(team, sums, *METHOD).code == 0

    def refused(*more: str | Path) -> str:
        done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "r", *more)
        assert done.code == 2, done
        return done.complaint

    assert "give one of them" in refused("--policy", "p", "--cut", "bob")
    assert "goes with --policy" in refused("--embedder", "hash")
    assert "no policy in nowhere" in refused("--policy", "nowhere")
    assert "learned for another graph; this one is with 'cy'" in refused("--policy", "p", "-G", "extra=true")
    file = Path("p/policy.json")
    good = json.loads(file.read_text())
    for change, said in [
        ({"version": 99}, "reads up to 1"),
        ({"format": "x"}, "not a policy"),
        ({"kind": "x"}, "unknown kind"),
    ]:
        file.write_text(json.dumps({**good, **change}))
        assert said in refused("--policy", "p")
    file.write_bytes(b"\x80\x04\x95 pickled")
    assert "can't be used" in refused("--policy", "p")
    file.write_text(json.dumps(good))
    Path("p/weights.safetensors").write_bytes(b"not weights")
    assert "no safetensors" in refused("--policy", "p")


WRONG = {
    "method": (["--method", "magic"], "unknown method 'magic'"),
    "setting": (["--method", "gptswarm", "--set", "colour=3"], "no setting 'colour'"),
    "no value": (["--set", "colour"], "write KEY=VALUE"),
    "rollouts": ([*METHOD, "--rollouts", "2"], "too few"),
    "tokens": ([*METHOD, "--tokens", "-5"], "tokens=-5"),
    "price": ([*METHOD, "--price", "-1"], "price of -1"),
    "infinite price": ([*METHOD, "--price", "inf"], "price of inf"),
    "seed": ([*METHOD, "--seed", "-1"], "seed=-1"),
    "half": (["--method", "frugal", "--set", "first=2.5"], "first=2.5; it must be a whole number"),
    "word": (["--method", "frugal", "--set", "separation=x"], "separation='x'; it must be a number"),
    "edges": ([*METHOD, "--edges", "some"], "edges='some'"),
    "confirm": ([*METHOD, "--confirm", "-1"], "confirm=-1"),
    "margin": ([*METHOD, "--margin", "0"], "margin=0"),
    "limit": ([*METHOD, "--limit", "0"], "--limit 0"),
    "draws": ([*METHOD, "--draws", "0"], "draws=0"),
    "model": ([*METHOD, "--model", "magic/x"], "magic"),
    "cost": ([*METHOD, "--cost", "1"], "price of 'mock/echo' is unknown"),
    "embedder": (["--method", "frugal", "--embedder", "no such"], "no embedding 'no such'"),
    "records": ([*METHOD, "--records", "team.py"], "no record"),
    "task option": ([*METHOD, "-T", "colour=1"], "no option colour"),
    "split": ([*METHOD, "-T", "split=score"], "no item of split 'learn'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_words_that_can_not_be_meant_are_refused_in_one_sentence(name: str, team: Path, sums: Path) -> None:
    words, said = WRONG[name]
    before = team.read_text()
    done = prune(team, sums, *words)
    assert done.code == 2, done
    assert said in done.complaint
    assert done.out == "" and team.read_text() == before
    assert not Path("p/policy.json").exists()


def test_a_task_without_splits_is_told_what_it_lacks(team: Path, tmp_path: Path) -> None:
    whole = write(tmp_path, "whole.py", SUMS.replace('split: str = "score", ', "").replace("split ==", "'score' ==").replace("[split]", "['score']").replace("{split}", "score").replace(": split}", ": 'score'}"))  # fmt: skip
    assert agentcomm("eval", team, whole, "--model", "mock/echo", "--out", "r").code == 0
    done = prune(team, whole, *METHOD)
    assert done.code == 2 and "take split= and give those of 'learn'" in done.complaint


def test_tokens_that_run_out_end_with_1_and_say_how_to_go_on(team: Path, sums: Path) -> None:
    done = prune(team, sums, *METHOD, "--tokens", "700", "--concurrency", "1")
    assert done.code == 1 and "raise the limit to go on" in done.complaint
    assert prune(team, sums, *METHOD).code == 0


def test_another_method_does_not_take_over_a_folder(team: Path, sums: Path) -> None:
    assert prune(team, sums, *METHOD).code == 0
    done = prune(team, sums, "--method", "random")
    assert done.code == 2 and 'learning.method was "gptswarm", now "random"' in done.complaint


def test_without_a_folder_a_new_one_is_made(team: Path, sums: Path) -> None:
    done = agentcomm("prune", team, sums, *METHOD, "--model", "mock/echo", "--rollouts", "12")
    assert done.code == 0, done.err
    (made,) = Path("policies").iterdir()
    assert re.search(rf"policy: {made}$", done.out, re.MULTILINE)


def test_help_names_every_method() -> None:
    done = agentcomm("prune", "--help")
    assert done.code == 0
    assert all(name in done.out for name in ABOUT)
