"""Embeddings and LLMLingua-2: around doubles, without the packages, and with tiny real networks."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agentcomm import channels
from agentcomm.channels import hf
from agentcomm.channels.protect import lost, pieces
from agentcomm.errors import ChannelError, ConfigError, MissingExtraError
from tests.channels.doubles import TEXT, compress

pytestmark = pytest.mark.anyio

needs_transformers = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        find_spec("transformers") is None or find_spec("torch") is None,
        reason="pip install 'agentcomm[learn]'",
    ),
]
LOSSY = 'Ben, 7, has 3 `goats()` and "a cat" at https://a.b/c, which is what people in the town were saying for years and years.'


def marking(monkeypatch: pytest.MonkeyPatch, wanted: set[str]) -> None:
    async def keep(model: str, words: list[str]) -> list[float]:
        return [0.9 if w.strip(".,") in wanted else 0.1 for w in words]

    monkeypatch.setattr(hf, "keep_probabilities", keep)


async def test_the_words_marked_highest_are_kept_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    marking(monkeypatch, {"Ben", "pet", "goat", "river"})
    made = await compress(channels.llmlingua2("folder", 8), TEXT)
    assert made.text == "Ada lives Ben river. Ben pet goat"
    assert made.compression.tokens is not None and made.compression.tokens <= 8


async def test_protected_pieces_are_kept_whole_whatever_it_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    marking(monkeypatch, {"years", "and"})
    made = await compress(channels.llmlingua2("folder", 36), LOSSY)
    assert lost(made.text, pieces(LOSSY)) == []
    assert made.compression.tokens is not None and made.compression.tokens <= 36
    assert "years" in made.text


async def test_a_model_that_fails_is_a_failed_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, head: str) -> Any:
        raise RuntimeError("CUDA is on fire")

    monkeypatch.setattr(hf, "_load", load)
    with pytest.raises(ChannelError, match="folder: RuntimeError: CUDA is on fire"):
        await compress(channels.llmlingua2("folder", 8), TEXT)


async def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for channel in (channels.llmlingua2("missing-1", 8), channels.extract(8, "embedding", model="missing-2")):
        with pytest.raises(MissingExtraError, match=r"pip install 'agentcomm\[learn\]'"):
            await compress(channel, TEXT)


def test_a_model_must_be_named() -> None:
    with pytest.raises(ConfigError, match="needs model="):
        channels.llmlingua2("", 8)
    with pytest.raises(ConfigError, match="go together"):
        channels.extract(8, "embedding")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-for-word BERT with random weights: two heads in two folders."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    words = sorted({w.strip(".,").lower() for w in TEXT.split()} | {".", ",", "word", "?"})
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words) + 5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=2,
    )  # fmt: skip
    for name, kind in (("encoder", "BertModel"), ("marker", "BertForTokenClassification")):
        getattr(transformers, kind)(config).save_pretrained(folder / name)
        tokenizer = transformers.BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary))
        tokenizer.save_pretrained(folder / name)
    return folder


class TestTiny:
    pytestmark = needs_transformers

    async def test_a_classifier_marks_every_word_of_a_text_longer_than_its_window(self, tiny: Path) -> None:
        words = (TEXT.split() * 20)[:900]
        marks = await hf.keep_probabilities(str(tiny / "marker"), words)
        assert len(marks) == 900
        assert all(0 < m < 1 for m in marks)
        assert await hf.keep_probabilities(str(tiny / "marker"), words[:300]) == pytest.approx(
            await hf.keep_probabilities(str(tiny / "marker"), words[:300])
        )
        assert await hf.keep_probabilities(str(tiny / "marker"), []) == []

    async def test_both_channels_meet_the_budget_with_a_real_network(self, tiny: Path) -> None:
        for channel in (
            channels.llmlingua2(str(tiny / "marker"), 9),
            channels.extract(20, "embedding", model=str(tiny / "encoder")),
        ):
            made = await compress(channel, TEXT)
            assert made.compression.status == "compressed"
            assert made.compression.tokens is not None and made.compression.budget is not None
            assert 0 < made.compression.tokens <= made.compression.budget
            assert (await compress(channel, TEXT)) == made

    async def test_the_sentence_that_is_the_question_is_the_most_similar(self, tiny: Path) -> None:
        texts = ["The weather was fine all week long.", "Ben has a pet goat.", "Cara plays the violin."]
        found = await hf.similarities(str(tiny / "encoder"), texts[1], texts)
        assert max(found) == found[1] == pytest.approx(1.0)

    async def test_a_folder_without_a_model_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no model of that kind at"):
            await compress(channels.llmlingua2(str(tmp_path), 8), TEXT)
