"""LoRA on dialogue rows through TRL: what has a label, what the reference is, adapters, resuming."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from agentcomm.backends.adapters import ModelRef, stacked  # noqa: E402
from agentcomm.backends.hf import load_tokenizer  # noqa: E402
from agentcomm.backends.hf import load_model as load  # noqa: E402
from agentcomm.dialogue import training  # noqa: E402
from agentcomm.dialogue.export import ExportTrainer, TrainConfig  # noqa: E402
from agentcomm.dialogue.rows import PreferenceRow, Row, read_rows, rows  # noqa: E402
from agentcomm.dialogue.training import TrlTrainer, encode, save_merged  # noqa: E402
from agentcomm.dialogue.tree import Said  # noqa: E402
from agentcomm.errors import ConfigError, RunError  # noqa: E402
from agentcomm.loading import load_graph  # noqa: E402
from agentcomm.task import Item  # noqa: E402
from tests.information.scorers.models import CHAT, byte_tokenizer, save  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Third parties' own: nothing that this package could mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|peft|transformers|trl|accelerate)"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(save(tmp_path_factory.mktemp("base"), byte_tokenizer(CHAT))))


def imitated(count: int = 4) -> list[Row]:
    talk = [Said("alice", "Turin. River?"), Said("bob", "Pö ✓ <A>Po</A>"), Said("alice", "<A>Po</A>")]
    graph = load_graph("information_exchange")
    items = [Item(f"i{k}", f"River {k}?", views={"s1": "x", "s2": "y"}) for k in range(count)]
    return [row for item in items for row in rows(graph, item, talk, reward=1.0)]


def preferred() -> list[PreferenceRow]:
    return [PreferenceRow(r.prompt, r.completion, "I do not know that.", r.meta) for r in imitated()]


def config(method: Any = "sft", **more: Any) -> TrainConfig:
    return TrainConfig(method, **{"max_steps": 2, "batch_size": 2, "learning_rate": 1e-2, **more})


def found(method: str) -> Any:
    return imitated() if method == "sft" else preferred()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(torch.arange(20)[None]).logits


@pytest.mark.parametrize("method", ["sft", "dpo", "rpo"])
def test_exported_files_train_two_steps_and_the_adapter_gives_equal_logits(
    method: Any, base: ModelRef, tmp_path: Path
) -> None:
    ExportTrainer(tmp_path / "x", load_tokenizer(base.base)).train(found(method), base, config(method))
    read = read_rows(tmp_path / "x" / "train.jsonl")
    trainer = TrlTrainer(tmp_path / "out", "cpu")
    trained: list[Any] = []
    prepare = TrlTrainer.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrlTrainer, "prepare", lambda *a: trained.append(prepare(*a)) or trained[-1])
        ref = trainer.train(read, base, config(method))
    assert trained[0].state.global_step == 2 and trained[0].args.use_cpu and not trained[0].args.bf16
    assert [p.suffix for p in (tmp_path / "out" / "adapter").glob("adapter_model*")] == [".safetensors"]
    after = logits(load(ref))
    assert torch.equal(after, logits(trained[0].model))
    assert not torch.allclose(after, logits(load(base)), atol=1e-4)
    merged = save_merged(ref, tmp_path / "merged")
    torch.testing.assert_close(logits(load(merged)), after, atol=1e-3, rtol=1e-3)


def test_labels_are_the_speakers_text_and_the_stop_token_and_nothing_else(
    base: ModelRef, tmp_path: Path
) -> None:
    made = imitated()
    tokenizer = load_tokenizer(base.base)
    trainer = TrlTrainer(tmp_path, "cpu").prepare(made, base, config(validation=0))
    for row, data in zip(made, trainer.train_dataset, strict=True):
        labels = [(i, label) for i, label in enumerate(data["labels"]) if label != -100]
        prompt = len(data["labels"]) - len(labels)
        assert [i for i, _ in labels] == list(range(prompt, len(data["labels"])))
        assert [label for _, label in labels] == data["input_ids"][prompt:]
        expected = tokenizer(row.completion)["input_ids"] + [tokenizer.eos_token_id]
        assert [label for _, label in labels] == expected
        assert tokenizer.decode([label for _, label in labels]) == row.completion + "<|im_end|>"
        asked = tokenizer.apply_chat_template(
            [m.as_dict() for m in row.prompt], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert data["input_ids"][:prompt] == asked
    batch = trainer.data_collator([dict(d) for d in trainer.train_dataset])
    assert int((batch["labels"] != -100).sum()) == sum(len(r.completion.encode()) + 1 for r in made)


def test_preference_texts_end_with_the_stop_token_too(base: ModelRef) -> None:
    tokenizer = load_tokenizer(base.base)
    encoded = encode(tokenizer, preferred()[0])
    assert [tokenizer.decode(ids) for ids in encoded.texts] == [
        "Turin. River?<|im_end|>",
        "I do not know that.<|im_end|>",
    ]


def test_the_second_iterations_reference_is_the_first_iterations_model(
    base: ModelRef, tmp_path: Path
) -> None:
    first = TrlTrainer(tmp_path / "0", "cpu").train(imitated(), base, config())
    trainer = TrlTrainer(tmp_path / "1", "cpu").prepare(preferred(), first, config("dpo"))
    assert trainer.ref_model is None
    with trainer.model.disable_adapter():
        reference = logits(trainer.model)
    m0 = logits(load(first))
    torch.testing.assert_close(reference.log_softmax(-1), m0.log_softmax(-1), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(reference, logits(load(base)), atol=1e-2)


def test_an_adapter_of_another_model_is_refused(base: ModelRef, tmp_path: Path) -> None:
    ref = TrlTrainer(tmp_path / "0", "cpu").train(imitated(), base, config())
    other = ModelRef(str(save(tmp_path / "other", byte_tokenizer(CHAT), scale=2.0)), ref.adapters)
    with pytest.raises(ConfigError, match="trained on another base model"):
        load(other)
    copy = ModelRef(shutil.copytree(base.base, tmp_path / "copy").as_posix(), ref.adapters)
    assert torch.equal(logits(load(copy)), logits(load(ref)))


def test_a_model_without_a_chat_template_and_over_long_rows_are_refused(
    base: ModelRef, tmp_path: Path
) -> None:
    plain = ModelRef(str(save(tmp_path / "plain", byte_tokenizer(None))))
    with pytest.raises(ConfigError, match="no chat template"):
        TrlTrainer(tmp_path / "x", "cpu").train(imitated(), plain, config())
    for method in ("sft", "dpo"):
        with pytest.raises(ConfigError, match="12 of 12 rows are longer than max_length=64"):
            TrlTrainer(tmp_path / "x", "cpu").train(found(method), base, config(method, max_length=64))


def test_a_full_disk_keeps_the_last_checkpoint_and_the_same_command_goes_on(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(max_steps=4, save_steps=1)
    whole = TrlTrainer(tmp_path / "whole", "cpu").train(imitated(), base, settings)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    mark = training._Marker.on_save

    def fills(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        mark(self, args, state, control, **more)
        if state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    trainer = TrlTrainer(tmp_path / "cut", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(training._Marker, "on_save", fills)
        try:
            with pytest.raises(RunError, match="the last checkpoint is .*checkpoint-2; make space"):
                trainer.train(imitated(), base, settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(ConfigError, match="holds a training on other rows"):
        trainer.train(imitated(3), base, settings)
    ref = trainer.train(imitated(), base, settings)
    assert '"resumed_from": "checkpoint-2"' in (tmp_path / "cut" / "report.json").read_text()
    torch.testing.assert_close(logits(load(ref)), logits(load(whole)), atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "cut" / "checkpoints").exists()
