"""``agentcomm eval``: what it prints, how it ends, and that a user's mistakes are told in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import (
    CALLS_PER_ITEM,
    SECRET,
    SUMS,
    TEAM,
    Done,
    agentcomm,
    everything_in,
    finish,
    start,
    write,
)
from tests.servers import CountingServer, answer, cut, status

KEYS = {
    "run",
    "graph",
    "task",
    "model",
    "items",
    "scored",
    "failed",
    "score",
    "calls",
    "tokens",
    "cost",
    "wall_s",
}
TOKEN_KEYS = {"input", "output", "cached", "by_agent", "by_edge", "by_part"}


# -- what it prints ----------------------------------------------------------------------------


def test_json_prints_one_object_with_every_promised_key_and_nothing_else(team: Path, sums: Path) -> None:
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run", "--json")
    assert done.code == 0
    assert done.err == ""
    summary = done.json
    assert set(summary) >= KEYS
    assert {"mean", "low", "high"} <= set(summary["score"])
    assert set(summary["tokens"]) >= TOKEN_KEYS
    assert (summary["run"], summary["graph"], summary["task"], summary["model"]) == (
        "run",
        "team",
        "sums",
        "mock/echo",
    )
    assert (summary["items"], summary["scored"], summary["failed"]) == (4, 4, 0)
    assert summary["calls"] == 4 * CALLS_PER_ITEM
    assert set(summary["tokens"]["by_edge"]) == {
        "solver->critic",
        "solver->judge",
        "critic->judge",
        "critic->solver",
    }
    assert sum(summary["tokens"]["by_part"].values()) == summary["tokens"]["input"]
    assert summary["cost"] is None  # nobody knows a price of mock/echo: not 0
    assert summary["tokens"]["cached"] is None


def test_the_installed_command_prints_the_same_json_as_a_process(
    team: Path, sums: Path, tmp_path: Path
) -> None:
    done = finish(start("eval", team, sums, "--model", "mock/echo", "--json", "--limit", "2", cwd=tmp_path))
    assert (done.code, done.err) == (0, "")
    assert done.json["items"] == 2
    assert Path(done.json["run"]).parent == Path("runs")
    assert (tmp_path / done.json["run"] / "results.json").is_file()


def test_without_json_a_person_reads_score_tokens_and_the_run_directory(team: Path, sums: Path) -> None:
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run")
    assert done.code == 0
    assert "score 0.00" in done.out
    assert "solver->critic" in done.out
    assert "run: run" in done.out
    assert "4/4" in done.err


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path, sums: Path) -> None:
    write(
        tmp_path,
        "odd.py",
        """
        import agentcomm as ac
        graph = ac.AgentGraph([ac.Agent("[/bold]"), ac.Agent("[red]")], [("[/bold]", "[red]")], decision="[red]")
        """,
    )
    done = agentcomm("eval", "odd.py", sums, "--model", "mock/echo", "--out", "run[1]")
    assert done.code == 0, done.err
    assert "[/bold]->[red]" in done.out
    assert "run[1]" in done.out
    assert "[/bold]" in agentcomm("graph", "odd.py").out
    assert "[/bold]->[red]" in agentcomm("ledger", "run[1]").out
    assert "[/bold]" in agentcomm("ledger", "run[1]", "--by", "call").out
    assert "[/bold]" in agentcomm("ledger", "run[1]", "--by", "agent").out
    assert "[/bold]->[red]" in agentcomm("run", "odd.py", "hello [/x]", "--model", "mock/echo").out


def test_help_answers_without_loading_what_only_work_needs() -> None:
    code = (
        "import sys\nsys.argv = ['agentcomm', '--help']\nfrom agentcomm.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "0" in loaded
    assert "eval" in done.stdout
    heavy = {
        "langgraph",
        "langchain_core",
        "openai",
        "networkx",
        "scipy",
        "numpy",
        "rich",
        "httpx",
        "sqlite3",
        "anyio",
    }
    assert not heavy & loaded


@pytest.mark.parametrize("command", ["eval", "run", "ledger", "graph", "compare"])
def test_every_command_has_help(command: str) -> None:
    done = agentcomm(command, "--help")
    assert done.code == 0
    assert "--json" in done.out


# -- continuing --------------------------------------------------------------------------------


def test_the_same_command_again_asks_nothing_and_prints_the_same(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        words = (
            "eval",
            team,
            sums,
            "--model",
            "openai/test-model",
            "--base-url",
            server.url,
            "--out",
            "run",
            "--json",
        )
        first = agentcomm(*words).json
        asked = len(server.served)
        second = agentcomm(*words).json
        assert len(server.served) == asked == 4 * CALLS_PER_ITEM
    assert {**first, "wall_s": 0} == {**second, "wall_s": 0}


def test_a_directory_of_another_configuration_is_refused_and_the_difference_shown(
    team: Path, sums: Path
) -> None:
    words = ("eval", team, sums, "--model", "mock/echo", "--out", "run")
    assert agentcomm(*words).code == 0
    before = [Path("run", name).read_bytes() for name in ("config.json", "results.json", "items.json")]
    done = agentcomm(*words, "--seed", "7", "--temperature", "0.5")
    assert done.code == 2
    assert "options.seed was 0, now 7" in done.complaint
    assert "options.temperature was 0.0, now 0.5" in done.complaint
    assert "--out" in done.complaint
    assert [
        Path("run", name).read_bytes() for name in ("config.json", "results.json", "items.json")
    ] == before


@pytest.mark.parametrize(
    "change",
    [
        ('"2 * i"', "str(2 * i)", "str(3 * i)"),
        ("question", "What is {i} plus", "How much is {i} plus"),
        ("id", 'f"q{i:03d}"', 'f"p{i:03d}"'),
    ],
    ids=["reference", "question", "id"],
)
def test_a_task_whose_items_changed_is_refused(
    change: tuple[str, str, str], team: Path, tmp_path: Path
) -> None:
    task = write(tmp_path, "sums.py", SUMS)
    words = ("eval", team, task, "--model", "mock/echo", "--out", "run")
    assert agentcomm(*words).code == 0
    write(tmp_path, "sums.py", SUMS.replace(change[1], change[2]))
    done = agentcomm(*words)
    assert done.code == 2
    assert "task.items_hash" in done.complaint


def test_a_run_that_never_asked_anything_takes_the_right_model(team: Path, sums: Path) -> None:
    assert agentcomm("eval", team, sums, "--model", "mock/ecoh", "--out", "run").code == 2
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run", "--json")
    assert done.code == 0
    assert json.loads(Path("run/config.json").read_text())["model"] == "mock/echo"


def test_a_graph_with_function_agents_continues_in_another_process(tmp_path: Path, sums: Path) -> None:
    graph = write(
        tmp_path,
        "voting.py",
        """
        import agentcomm as ac
        async def vote(turn):
            return turn.inbox[0].text
        graph = ac.AgentGraph([ac.Agent("a"), ac.Agent("vote", act=vote)], [("a", "vote")], decision="vote")
        """,
    )
    words = ("eval", graph, sums, "--model", "mock/echo", "--out", "run", "--json")
    for seed in ("1", "2"):  # of Python's string hashes, which differ from process to process
        done = finish(start(*words, cwd=tmp_path, env={"PYTHONHASHSEED": seed}))
        assert done.code == 0, done.err
        assert done.json["calls"] == 4


def test_a_run_directory_that_another_process_runs_in_is_refused(team: Path, sums: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    words = ("eval", team, sums, "--model", "mock/echo", "--out", "run")
    assert agentcomm(*words).code == 0
    with Path("run/lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = agentcomm(*words)
    assert done.code == 2
    assert "another process is running in run" in done.complaint


def test_a_folder_of_other_files_is_never_taken_for_a_run(team: Path, sums: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("...")
    done = agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "mine")
    assert done.code == 2
    assert "thesis.tex" in done.complaint
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.tex"]


def test_what_a_start_on_a_full_disk_left_behind_does_not_stop_the_next(team: Path, sums: Path) -> None:
    Path("run").mkdir()
    Path("run/config.json.partial").write_text('{"gra')
    Path("run/lock").touch()
    assert agentcomm("eval", team, sums, "--model", "mock/echo", "--out", "run").code == 0


def test_failed_items_end_with_1_and_are_tried_again(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(status(400), when=lambda r: "What is 2 plus" in str(r["messages"]))
        words = (
            "eval",
            team,
            sums,
            "--model",
            "openai/test-model",
            "--base-url",
            server.url,
            "--out",
            "run",
            "--json",
        )
        done = agentcomm(*words)
        assert done.code == 1
        assert (done.json["scored"], done.json["failed"]) == (3, 1)
        assert "item q002" in done.err
        assert "scripted 400" in done.err
        asked = len(server.served)
        server.forgive()
        again = agentcomm(*words)
        assert again.code == 0
        assert (again.json["scored"], again.json["failed"]) == (4, 0)
        assert len(server.served) - asked == CALLS_PER_ITEM
        assert all("What is 2 plus" in str(s.request) for s in server.served[asked:])


def test_a_failed_item_is_tried_again_with_checkpoints_too(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(status(400), when=lambda r: "Judge." in str(r["messages"]))
        words = ("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--limit", "1",
                 "--out", "run", "--checkpoint", "c.sqlite", "--json")  # fmt: skip
        assert agentcomm(*words).code == 1
        server.forgive()
        done = agentcomm(*words)
        assert (done.code, done.json["scored"]) == (0, 1)
        assert server.tokens.requests == CALLS_PER_ITEM + 1  # only the judge was asked again


def test_checkpoints_of_one_run_never_answer_for_another(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        for out in ("one", "two"):
            done = agentcomm("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url,
                             "--out", out, "--checkpoint", "c.sqlite", "--limit", "1", "--json")  # fmt: skip
            assert done.json["calls"] == CALLS_PER_ITEM
        assert server.tokens.requests == 2 * CALLS_PER_ITEM


# -- the user's mistakes -----------------------------------------------------------------------


def refused(*words: str | Path, code: int = 2) -> str:
    """Run a command that must be refused before anything runs; the one sentence it says."""
    done = agentcomm(*words, env={"OPENAI_API_KEY": SECRET})
    assert done.code == code, (done.code, done.out, done.err)
    assert done.out == ""
    assert_no_secret(done)
    return done.complaint


def assert_no_secret(done: Done) -> None:
    assert SECRET not in done.out + done.err
    assert SECRET.encode() not in everything_in(Path.cwd())


GRAPHS = {
    "cycle": (
        '[A("a"), A("b"), A("c")], [("a", "b"), ("b", "a"), ("b", "c")], decision="c"',
        "cycle: a -> b -> a",
    ),
    "duplicate": ('[A("a"), A("a")], [], decision="a"', "2 agents are named 'a'"),
    "unknown": ('[A("a"), A("b")], [("a", "bb")], decision="b"', "'bb'"),
    "no_decision": ('[A("a"), A("b")], [("a", "b")]', "no decision agent"),
    "wrong_decision": (
        '[A("a"), A("b")], [("a", "b")], decision="c"',
        "decision agent 'c' is not in the graph",
    ),
    "lost": ('[A("a"), A("b"), A("c")], [("a", "b")], decision="b"', "can't reach the decision agent 'b'"),
    "rounds": ('[A("a")], [], decision="a", rounds=0', "rounds=0"),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("command", ["eval", "run", "graph"])
def test_a_graph_that_can_not_run_is_refused(name: str, command: str, tmp_path: Path, sums: Path) -> None:
    body, said = GRAPHS[name]
    graph = write(tmp_path, "g.py", f"import agentcomm as ac\nA = ac.Agent\ngraph = ac.AgentGraph({body})\n")
    rest = {"eval": [sums, "--model", "mock/echo"], "run": ["hello", "--model", "mock/echo"], "graph": []}[
        command
    ]
    assert said in refused(command, graph, *rest)
    assert not Path("runs").exists()


FILES = {
    "raises": ("x = 1\nraise RuntimeError('boom\\nand more')\n", "line 2: RuntimeError: boom and more"),
    "exits": ("import sys\nsys.exit(0)\n", "SystemExit"),
    "syntax": ("def graph(:\n", "line 1"),
    "nothing": ("x = 1\n", "defines no `graph`"),
    "other": ("graph = 5\n", "`graph` is a int"),
    "raising_function": ("def graph():\n    return {}['x']\n", "line 2: KeyError"),
    "not_text": (b"\xff\xfe\x00", "not.py"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_graph_file_that_gives_no_graph_is_refused(name: str, tmp_path: Path, sums: Path) -> None:
    text, said = FILES[name]
    path = tmp_path / "not.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    complaint = refused("eval", path, sums, "--model", "mock/echo")
    assert said in complaint
    assert "not.py" in complaint


WORDS = {
    "graph": (["nosuch", "{sums}", "--model", "mock/echo"], ["no graph called 'nosuch'", "debate"]),
    "graph_file": (["nosuch.py", "{sums}", "--model", "mock/echo"], ["no file nosuch.py"]),
    "task": (["{team}", "nosuch", "--model", "mock/echo"], ["no task called 'nosuch'", "gsm8k"]),
    "task_file": (["{team}", "nosuch.py", "--model", "mock/echo"], ["no file nosuch.py"]),
    "no_model": (["{team}", "{sums}"], ["--model"]),
    "model": (["{team}", "{sums}", "--model", "gpt4"], ["unknown model 'gpt4'", "openai/"]),
    "provider_only": (["{team}", "{sums}", "--model", "openai/"], ["names no model"]),
    "gguf": (["{team}", "{sums}", "--model", "local/nosuch.gguf"], ["nosuch.gguf"]),
    "graph_option": (["{team}", "{sums}", "--model", "mock/echo", "-G", "turns=3"], ["no option turns", "rounds"]),
    "graph_words": (["{team}", "{sums}", "--model", "mock/echo", "-G", "turns"], ["KEY=VALUE"]),
    "graph_value": (["{team}", "{sums}", "--model", "mock/echo", "-G", "rounds=0"], ["rounds=0"]),
    "task_option": (["{team}", "{sums}", "--model", "mock/echo", "-T", "size=3"], ["no option size", "limit"]),
    "task_split": (["{team}", "{sums}", "--model", "mock/echo", "--split", "learn"], ["no option split"]),
    "limit": (["{team}", "{sums}", "--model", "mock/echo", "--limit", "0"], ["--limit 0"]),
    "run_limit_name": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "money=3"], ["--run-limit money=3"]),
    "run_limit_sign": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "calls=-3"], ["calls=-3"]),
    "run_limit_words": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "calls"], ["KEY=VALUE"]),
    "run_limit_nan": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "cost=NaN"], ["cost"]),
    "run_limit_text": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "calls=many"], ["calls=many"]),
    "unknown_price": (["{team}", "{sums}", "--model", "mock/echo", "--run-limit", "cost=1"], ["price of 'mock/echo'"]),
    "prices": (["{team}", "{sums}", "--model", "mock/echo", "--prices", "none.toml"], ["none.toml"]),
    "samples": (["{team}", "{sums}", "--model", "mock/echo", "--samples", "0"], ["samples=0"]),
    "executor": (["{team}", "{sums}", "--model", "mock/echo", "--executor", "ray"], ["'ray'", "langgraph"]),
    "retries": (["{team}", "{sums}", "--model", "mock/echo", "--retries", "0"], ["at least 1"]),
    "timeout": (["{team}", "{sums}", "--model", "mock/echo", "--timeout", "0"], ["timeout"]),
    "concurrency": (["{team}", "{sums}", "--model", "mock/echo", "--concurrency", "0"], ["at least 1"]),
    "temperature": (["{team}", "{sums}", "--model", "mock/echo", "--temperature", "-1"], ["temperature=-1"]),
    "max_tokens": (["{team}", "{sums}", "--model", "mock/echo", "--max-tokens", "0"], ["max_tokens=0"]),
    "cut_agent": (["{team}", "{sums}", "--model", "mock/echo", "--cut", "nobody"], ["nobody"]),
    "cut_edge": (["{team}", "{sums}", "--model", "mock/echo", "--cut", "judge->solver"], ["judge->solver"]),
    "out_is_a_file": (["{team}", "{sums}", "--model", "mock/echo", "--out", "{team}"], ["team.py", "--out"]),
    "base_url": (["{team}", "{sums}", "--model", "openai/x", "--base-url", "here"], ["'here' is no address"]),
    "data": (["{team}", "gsm8k", "--model", "mock/echo", "--data", "nowhere"], ["nowhere"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_words_that_can_not_be_meant_are_refused_in_one_sentence(name: str, team: Path, sums: Path) -> None:
    words, said = WORDS[name]
    complaint = refused("eval", *(w.format(team=team, sums=sums) for w in words))
    for text in said:
        assert text in complaint
    assert "\n" not in complaint
    assert len(complaint) < 500


def test_a_row_that_does_not_parse_is_refused_with_its_file_and_line(team: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / "test.jsonl").write_text(
        '{"question": "1+1?", "answer": "#### 2"}\n{"question": "2+2?", "answer\n'
    )
    complaint = refused("eval", team, "gsm8k", "--data", folder, "--model", "mock/echo")
    assert "test.jsonl" in complaint
    assert "line 2" in complaint


def test_a_server_that_does_not_listen_is_named_before_anything_runs(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        url = server.url
    complaint = refused("eval", team, sums, "--model", "openai/x", "--base-url", url, "--out", "run")
    assert url in complaint
    assert "--base-url" in complaint


def test_a_model_that_the_server_lacks_is_named_with_those_it_has(team: Path, sums: Path) -> None:
    with CountingServer() as server:
        complaint = refused(
            "eval", team, sums, "--model", "openai/tset-model", "--base-url", server.url, "--out", "r"
        )
        assert "'tset-model'" in complaint
        assert "test-model" in complaint
        assert server.served == []


def test_a_model_that_turns_out_missing_ends_the_run_with_one_request_a_place(team: Path, sums: Path) -> None:
    with CountingServer(models=False) as server:
        server.script(status(404), when=lambda r: True)
        done = agentcomm(
            "eval", team, sums, "--model", "openai/x", "--base-url", server.url, "--out", "r", "--json"
        )
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "404" in done.err
    assert done.json["failed"] >= 1
    assert server.tokens.requests <= 4


def test_a_missing_key_is_refused_before_any_network(
    team: Path, sums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: asked.append(a))
    monkeypatch.setattr("socket.socket.connect", lambda *a, **k: asked.append(a))
    words = (
        "--model",
        "openai/x",
        "--base-url",
        "https://api.example.com/v1",
        "--api-key-env",
        "NO_SUCH_KEY",
    )
    complaint = refused("eval", team, sums, *words)
    assert "NO_SUCH_KEY" in complaint
    assert "--api-key-env" in complaint
    assert asked == []


def test_a_key_that_the_server_refuses_and_repeats_is_seen_nowhere(team: Path, sums: Path) -> None:
    with CountingServer(api_key="another") as server:
        complaint = refused(
            "eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "r"
        )
    assert "OPENAI_API_KEY" in complaint


@pytest.mark.parametrize("key", [SECRET, "Tr0ub4dor&3-of-no-known-shape"])
def test_a_key_that_a_model_or_an_error_says_is_seen_nowhere(key: str, team: Path, sums: Path) -> None:
    with CountingServer() as server:
        server.script(answer(f"Your key is {key}."), when=lambda r: "plus 0" in str(r["messages"]))
        leak = {"error": {"message": f"invalid header Authorization: Bearer {key}"}}
        server.script(status(400, body=leak), when=lambda r: "plus 1" in str(r["messages"]))
        done = agentcomm("eval", team, sums, "--model", "openai/test-model", "--base-url", server.url, "--out", "r",
                         "--json", env={"OPENAI_API_KEY": key})  # fmt: skip
    assert done.code == 1
    assert done.json["failed"] == 1
    shown = done.out + done.err + agentcomm("ledger", "r", "--by", "call").out
    assert key not in shown
    assert key.encode() not in everything_in(Path("r"))


def test_a_scorer_that_crashes_is_named_and_what_was_paid_for_is_reused(team: Path, tmp_path: Path) -> None:
    bad = SUMS.replace("return ac.Score", "1 / int(item.answer)\n    return ac.Score")
    task = write(tmp_path, "sums.py", bad)
    with CountingServer() as server:
        words = (
            "eval",
            team,
            task,
            "--model",
            "openai/test-model",
            "--base-url",
            server.url,
            "--out",
            "r",
            "--json",
        )
        done = agentcomm(*words)
        assert done.code == 1
        assert "scorer of task 'sums' failed on item 'q000': ZeroDivisionError" in done.complaint
        write(tmp_path, "sums.py", SUMS)
        again = agentcomm(*words)
        assert again.code == 0
        assert again.json["calls"] == 4 * CALLS_PER_ITEM == server.tokens.requests


@pytest.mark.parametrize("gives", ["ac.Score(float('nan'))", "ac.Score(2.0)", "0.5", "None"])
def test_a_score_that_is_none_is_refused(gives: str, team: Path, tmp_path: Path) -> None:
    text = f"import agentcomm as ac\ndef task():\n    return ac.Task('t', [ac.Item('q', 'Hm?')], lambda i, t: {gives})\n"
    done = agentcomm("eval", team, write(tmp_path, "t.py", text), "--model", "mock/echo", "--out", "r")
    assert done.code == 1  # the item was already running
    assert "scorer of task 't'" in done.complaint


def test_settings_of_a_task_that_json_does_not_know_do_no_harm(team: Path, tmp_path: Path) -> None:
    text = """
        import pathlib
        import agentcomm as ac
        def task():
            config = {"data": pathlib.Path("x"), "share": float("nan"), 3: (1, 2)}
            return ac.Task("t", [ac.Item("q", "Hm?", answer={1, 2})], lambda i, t: ac.Score(1.0), config=config)
    """
    words = ("eval", team, write(tmp_path, "t.py", text), "--model", "mock/echo", "--out", "r", "--json")
    for _ in range(2):
        assert agentcomm(*words).code == 0
    for name in ("config.json", "results.json", "items.json"):
        Done(0, (Path("r") / name).read_text(), "").json  # noqa: B018 -- fails if it isn't JSON


def test_a_view_that_no_item_has_is_the_users_to_mend(tmp_path: Path, sums: Path) -> None:
    graph = write(
        tmp_path,
        "g.py",
        "import agentcomm as ac\ngraph = ac.AgentGraph([ac.Agent('a', view='left')], [], decision='a')\n",
    )
    done = agentcomm("eval", graph, sums, "--model", "mock/echo", "--out", "r")
    assert done.code == 2
    assert "no view 'left'" in done.complaint


def test_a_connection_that_is_always_cut_is_a_failure_of_its_item(sums: Path) -> None:
    with CountingServer() as server:
        server.script(cut(0), when=lambda r: "plus 1" in str(r["messages"]))
        done = agentcomm("eval", "single", sums, "--model", "openai/test-model", "--base-url", server.url,
                         "--retries", "1", "--out", "r", "--json")  # fmt: skip
    assert done.code == 1
    assert (done.json["scored"], done.json["failed"], done.json["unknown_calls"]) == (3, 1, 1)


def test_team_is_what_the_tests_say() -> None:
    assert TEAM.count("ac.Agent(") == 3


# -- adversaries -------------------------------------------------------------------------------


def test_an_agent_can_be_told_to_mislead_and_the_result_says_who(team: Path, sums: Path) -> None:
    words = ("eval", team, sums, "-m", "mock/echo", "--adversary", "critic", "--adversary", "+solver")
    done = agentcomm(*words, "--out", "misled")
    assert done.code == 0, done.err
    assert "told to mislead: solver2, critic" in done.out
    assert agentcomm(*words, "--out", "misled", "--json").json["adversaries"] == ["solver2", "critic"]
    plain = agentcomm("eval", team, sums, "-m", "mock/echo", "--out", "plain")
    assert "mislead" not in plain.out
    # Another team: not the same run.
    assert "holds a run with another configuration" in agentcomm(*words, "--out", "plain").complaint
    assert "no agent 'nobody'" in agentcomm("eval", team, sums, "--adversary", "nobody").complaint
