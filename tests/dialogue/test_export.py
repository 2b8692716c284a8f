"""Rows for training elsewhere: files, settings, token statistics, and refusals before anything is written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentcomm.dialogue.export import (
    ExportTrainer,
    ModelRef,
    TrainConfig,
    by_bytes,
    counter_of,
    fitting,
    has_system_role,
    lengths,
)
from agentcomm.dialogue.rows import Meta, PreferenceRow, Row, read_rows
from agentcomm.errors import ConfigError
from agentcomm.message import ChatMessage

BASE = ModelRef("some/folder")


def row(item: int = 0, words: int = 3) -> Row:
    prompt = (ChatMessage("system", "s"), ChatMessage("user", " ".join(["w"] * words)))
    return Row(prompt, "yes <A>1</A>", Meta(f"i{item}", 0, "alice", 1, 1.0, "x"))


def pair(item: int = 0) -> PreferenceRow:
    return PreferenceRow(row(item).prompt, "yes", "certainly so", row(item).meta)


def words(prompt: Sequence[ChatMessage], text: str) -> tuple[int, int]:
    asked = sum(len(m.content.split()) for m in prompt)
    return asked, asked + len(text.split())


class Words:
    """A tokenizer of words whose template may lack the system role."""

    name_or_path = "words"

    def __init__(self, template: str | None = "chatml", system: bool = True) -> None:
        self.chat_template, self.system = template, system

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        if not self.system and conversation[0]["role"] == "system":
            raise ValueError("System role not supported")
        text = "".join(f"<{m['role']}> {m['content']} </> " for m in conversation)
        if options.get("add_generation_prompt"):
            text += "<assistant> "
        return text if options.get("tokenize") is False else {"input_ids": text.split()}


@pytest.mark.parametrize("method", ["sft", "dpo", "rpo"])
def test_an_export_holds_rows_settings_statistics_and_hashes(tmp_path: Path, method: Any) -> None:
    config = TrainConfig(method, validation=20, max_steps=2)
    found: Any = [row(k) if method == "sft" else pair(k) for k in range(10)]
    out = tmp_path / "export"
    assert ExportTrainer(out, Words()).train(found, BASE, config) == BASE
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows"] == {"train": 8, "validation": 2} and manifest["left_out"] == 0
    read = [*read_rows(out / "train.jsonl"), *read_rows(out / "validation.jsonl")]
    assert sorted(r.meta.item for r in read) == sorted(r.meta.item for r in found)
    for name, value in manifest["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == value
    assert set(manifest["sha256"]) == {p.name for p in out.iterdir()} - {"manifest.json"}
    trl = json.loads((out / "trl_config.json").read_text())
    assert trl["max_length"] == 64 and trl["max_steps"] == 2 and trl["bf16"] is False
    if method == "sft":
        assert trl["completion_only_loss"] is True and trl["learning_rate"] == 2e-4
        assert (
            manifest["tokens"]["prompt_tokens"] == 10 * 9
            and manifest["tokens"]["completion_tokens"] == 10 * 3
        )
    else:
        expected = (["sigmoid"], None) if method == "dpo" else (["sigmoid", "sft"], [1.0, 1.0])
        assert (trl["loss_type"], trl.get("loss_weights")) == expected
    assert json.loads((out / "lora_config.json").read_text())["target_modules"] == "all-linear"


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        ExportTrainer(tmp_path / name).export([row(k) for k in range(9)], BASE, TrainConfig())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_more_than_one_percent_over_long_rows_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    found = [row(k, 500 if k < 2 else 3) for k in range(199)]
    with pytest.raises(
        ConfigError, match=r"2 of 199 rows are longer than max_length=64 tokens \(2 by their prompt"
    ):
        ExportTrainer(tmp_path / "x", Words()).export(found, BASE, TrainConfig(max_length=64))
    assert not (tmp_path / "x").exists()


def test_up_to_one_percent_is_left_out_and_counted_never_cut(tmp_path: Path) -> None:
    found = [row(k, 500 if k < 2 else 3) for k in range(200)]
    manifest = ExportTrainer(tmp_path, Words()).export(found, BASE, TrainConfig(max_length=64))
    assert manifest["left_out"] == 2 and manifest["rows"]["train"] + manifest["rows"]["validation"] == 198
    assert not {"i0", "i1"} & {r.meta.item for r in read_rows(tmp_path / "train.jsonl")}


def test_lengths_are_exact_at_the_limit() -> None:
    counted = lengths([row(words=60)], words, counted_by="words", max_length=63)
    assert counted.longest == 63 and counted.over_long == () and fitting([row()], counted) == [row()]
    with pytest.raises(ConfigError, match="1 of 1 rows"):
        lengths([row(words=60)], words, counted_by="words", max_length=62)
    assert lengths([row(words=61)], words, counted_by="words").max_length == 64
    assert lengths([row(words=62)], words, counted_by="words").max_length == 128


def test_a_preference_row_is_as_long_as_its_longer_text_and_its_prompt_is_read_twice() -> None:
    counted = lengths([pair()], words, counted_by="words")
    assert (counted.longest, counted.prompt_tokens, counted.completion_tokens) == (6, 8, 3)


def test_rows_of_the_wrong_kind_and_no_rows_are_refused(tmp_path: Path) -> None:
    export = ExportTrainer(tmp_path)
    with pytest.raises(ConfigError, match="method 'dpo' needs preference rows"):
        export.export([row()], BASE, TrainConfig("dpo"))
    with pytest.raises(ConfigError, match="method 'sft' needs rows to imitate"):
        export.export([pair()], BASE, TrainConfig())
    with pytest.raises(ConfigError, match="there are no rows to train on"):
        export.export([], BASE, TrainConfig())


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are sft, dpo, rpo"):
        TrainConfig("ppo")  # type: ignore[arg-type]
    for changed in ({"epochs": 0}, {"rank": -1}, {"learning_rate": float("nan")}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(changed))):
            replace(TrainConfig(), **changed)


def test_a_model_without_a_chat_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="'words' has no chat template"):
        counter_of(Words(template=None))


def test_a_template_without_a_system_role_is_found_by_trying_and_the_text_is_folded_in() -> None:
    assert has_system_role(Words()) and not has_system_role(Words(system=False))
    assert counter_of(Words())(row().prompt, "yes") == (9, 11)
    assert counter_of(Words(system=False))(row().prompt, "yes") == (7, 9)


def test_without_a_tokenizer_tokens_are_guessed_and_the_manifest_says_so(tmp_path: Path) -> None:
    manifest = ExportTrainer(tmp_path).export([row()], BASE, TrainConfig())
    assert manifest["tokens"]["counted_by"] == "bytes/3"
    assert by_bytes((ChatMessage("user", "abcd"),), "x") == (10, 19)


def test_steps_count_epochs_batches_and_accumulation() -> None:
    assert TrainConfig(batch_size=4, accumulate=2, epochs=3).steps(17) == 9
    assert TrainConfig(max_steps=2).steps(1000) == 2


def test_exporting_needs_no_torch() -> None:
    code = "import agentcomm.dialogue.export, sys; assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
