"""agentcomm train: a tiny random model from end to end, rows for elsewhere, and what can't be trained."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcomm.dialogue.rows import read_rows
from tests.command import agentcomm

TASK = ["-T", "specialists=2", "-T", "by=attribute", "-T", "hops=2"]
SMALL = ["--items", "3", "--validate", "3", "--samples", "2", "--min-tokens", "1", "--readability", "ngram"]
TEAM = ["information_exchange", "records", *TASK, "-G", "rounds=2", "-G", "max_tokens=8"]
# A random model is never right and never ends: everything is learned from, whatever it is worth.
ANYTHING = [
    "--keep-cut",
    "--task-floor",
    "0",
    "--threshold",
    "-9",
    "--least",
    "-9",
    "--gap",
    "0",
    "--accept",
    "always",
]


def script(folder: Path) -> str:
    path = folder / "model.json"
    path.write_text(json.dumps({"by_role": {"grammar": "cat <A>x</A>"}, "default": "so it may be <A>x</A>"}))
    return f"scripted/{path}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    models = pytest.importorskip("tests.information.scorers.models")
    folder: Path = models.save(tmp_path_factory.mktemp("tiny") / "base", models.byte_tokenizer(models.CHAT))
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    try:
        import torch
    except ModuleNotFoundError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


pytestmark = [
    # Third parties' own: nothing that this package could mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|peft|transformers|trl|accelerate)"),
]


def test_a_random_model_is_trained_saved_served_and_evaluated(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapters"
    command = ["train", *TEAM, "--model", f"hf/{tiny}", "--method", "isft-dpo", "--iterations", "2", *SMALL,
               *ANYTHING, "--expansions", "2", "--rollouts", "2", "--max-steps", "2", "--out", out]  # fmt: skip
    made = agentcomm(*command, "--json")
    assert made.code == 0, made.err
    result = made.json  # nothing of what the trainers print is on stdout
    assert [m["training_method"] for m in result["iterations"]] == ["sft", "dpo"]
    assert [m["training"]["steps"] for m in result["iterations"]] == [2, 2]
    assert result["adapter"] == str(out / "iter2") and (out / "iter2/adapter_model.safetensors").exists()
    assert result["spent"] == sum(sum(m["spent"].values()) for m in result["iterations"])
    shown = agentcomm(*command)  # the same command again trains nothing
    assert shown.code == 0, shown.err
    for word in ("sft*", "dpo", "untrained", "iter2", "tokens paid for learning", "--adapter"):
        assert word in shown.out
    # The command that it ends with is one that runs.
    program, *words = shlex.split(result["evaluate"])
    assert program == "agentcomm"
    ended = agentcomm(*words, "--limit", "2", "--out", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["scored"] == 2


def test_rows_are_exported_with_any_model_and_without_torch(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    command = ["train", *TEAM, "--model", script(tmp_path), *SMALL, *ANYTHING, "--out", tmp_path / "out"]
    made = agentcomm(*command, "--export", rows)
    assert made.code == 0, made.err
    found = read_rows(rows)
    assert found and f"{len(found)} rows in {rows}" in " ".join(made.out.split())
    again = agentcomm(*command, "--export", rows, "--json")
    assert again.json["funnel"]["rows"] == len(found) and again.json["failed"] == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model", "mock/echo"], "can't be trained here"),
        (["--model", "hf/nowhere"], "no folder"),
        (["--model", "hf/nowhere", "--device", "tpu"], "auto, cpu or cuda"),
        (["--model", "mock/echo", "--export", "x", "--method", "ppo"], "isft"),
        (["--model", "mock/echo", "--export", "x", "--formats", "morse"], "morse"),
        (["--model", "mock/echo", "--export", "x", "-G", "instruction=x"], "leave it out"),
        (["--model", "mock/echo", "--export", "x", "--samples", "1"], "at least 2"),
        (["--model", "mock/echo", "--export", "x", "--count", "words"], "message"),
        ([], "no model"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(more: list[str], says: str, tmp_path: Path) -> None:
    made = agentcomm("train", "information_exchange", "records", *TASK, "--out", tmp_path / "o", *more)
    assert made.code == 2 and says in made.complaint


def test_a_model_without_a_chat_template_is_refused_before_anything_is_paid(
    tmp_path: Path, tiny: Path
) -> None:
    models = pytest.importorskip("tests.information.scorers.models")
    bare = models.save(tmp_path / "bare", models.byte_tokenizer(None))
    made = agentcomm("train", *TEAM, "--model", f"hf/{bare}", *SMALL, "--out", tmp_path / "o")
    assert made.code == 2 and "chat template" in made.complaint
    assert not (tmp_path / "o").exists()


def test_dialogues_that_teach_nothing_keep_the_model_and_say_why(tiny: Path, tmp_path: Path) -> None:
    made = agentcomm(
        "train", *TEAM, "--model", f"hf/{tiny}", "--iterations", "1", *SMALL, "--out", tmp_path / "o"
    )
    assert made.code == 0, made.err
    text = " ".join(made.out.split())
    assert "Iteration 1 learned nothing: no dialogue marked an answer" in text and "keep the model" in text


def test_a_team_without_formats_is_told_what_to_do(tmp_path: Path) -> None:
    made = agentcomm("train", "solver_critic_judge", "records", "--model", "mock/echo", "--export", tmp_path / "x",
                     "--out", tmp_path / "o")  # fmt: skip
    assert made.code == 2 and "--formats none" in made.complaint
