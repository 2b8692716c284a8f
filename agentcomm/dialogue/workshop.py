"""Workshop: adapters trained with TRL in this process, and served by transformers or vLLM (extra ``train``).

Deliberately absent: what is learned (:mod:`agentcomm.dialogue.learning`).
"""

from __future__ import annotations

import io
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx

from agentcomm.backends.base import VLLM_KEY_ENV, Backend
from agentcomm.dialogue.export import ModelRef, TrainConfig
from agentcomm.dialogue.joined import join
from agentcomm.dialogue.rows import PreferenceRow, Row
from agentcomm.errors import ConfigError


class Workshop(Protocol):
    """Where models are trained and served."""

    def serve(self, ref: ModelRef) -> str | Backend | None:
        """What a model is called by :func:`agentcomm.evaluate`."""
        ...

    def train(
        self, found: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig, out: Path
    ) -> ModelRef:
        """``base`` with one adapter more, trained in the folder ``out``; continues what is there."""
        ...

    def publish(self, ref: ModelRef, out: Path) -> None:
        """Put a model's adapters into the folder ``out``, as one."""
        ...

    def report(self, out: Path) -> Mapping[str, Any]:
        """``steps``, ``tokens_seen``, ``device_seconds`` and ``device`` of a training in ``out``, as far as known."""
        ...


@dataclass(frozen=True)
class TrlWorkshop:
    """Trains with :class:`agentcomm.dialogue.training.TrlTrainer`.

    Parameters
    ----------
    provider:
        Who serves: ``"hf"`` in this process, or ``"vllm"``.
    device:
        Where to train.
    note:
        Hears now and then how far a training is.
    base_url:
        A vLLM server that runs already; adapters are put into it as they come.
    merge:
        vLLM gets trained models as folders of their own beside the adapter (``iter1-merged``) and no
        LoRA, which on a CPU makes it far slower (eval/LOG.md, agents that learned to say less).
    """

    provider: str = "hf"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    note: Callable[[str], None] = lambda text: None
    base_url: str | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        if self.merge and (self.provider != "vllm" or self.base_url is not None):
            raise ConfigError(
                "merged models are for vllm/ servers that are started for them: no other provider, no base_url"
            )

    def serve(self, ref: ModelRef) -> str:
        if self.merge and ref.adapters:
            from agentcomm.dialogue.training import save_merged

            folder = Path(f"{ref.adapters[-1]}-merged")
            return f"{self.provider}/{folder if folder.is_dir() else save_merged(ref, folder)}"
        if self.provider == "vllm" and self.base_url is not None and ref.adapters:
            _load(self.base_url, ref.adapters[-1])
        return f"{self.provider}/{ref}"

    def train(
        self, found: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig, out: Path
    ) -> ModelRef:
        from agentcomm.dialogue.training import TrlTrainer

        # What the libraries print belongs on no stdout of ours; their log is in report.json.
        log = _Log(self.note)
        with redirect_stdout(log), redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TrlTrainer(out, self.device).train(found, base, config)

    def publish(self, ref: ModelRef, out: Path) -> None:
        join(ref, out)

    def report(self, out: Path) -> Mapping[str, Any]:
        try:
            found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found


def _load(base_url: str, adapter: str) -> None:
    """Put an adapter into a running vLLM server, which answers 400 where it has it already."""
    url = f"{base_url.rstrip('/')}/load_lora_adapter"
    key = os.environ.get(VLLM_KEY_ENV)
    asked = {"lora_name": adapter, "lora_path": str(Path(adapter).resolve())}
    try:
        answer = httpx.post(
            url, json=asked, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=120.0
        )
    except httpx.HTTPError as error:
        raise ConfigError(
            f"{url} can't be reached: {error}; start the server and repeat the command"
        ) from error
    if answer.is_success or (answer.status_code == 400 and "already" in answer.text):
        return
    raise ConfigError(
        f"{url} did not take the adapter {adapter} ({answer.status_code}: {' '.join(answer.text.split())[:200]}); "
        "start vLLM with --enable-lora --max-lora-rank 64 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    )


class _Log(io.TextIOBase):
    """Takes what a trainer prints; passes its losses on, one in ten seconds."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note, self._said = note, time.monotonic()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if text.startswith("{'loss'") and time.monotonic() - self._said > 10.0:
            self._said = time.monotonic()
            values = (part.strip(" {}'").replace("'", "") for part in text.strip().split(","))
            self._note("training: " + ", ".join(v for v in values if v.startswith(("loss", "epoch"))))
        return len(text)


@dataclass(frozen=True)
class Elsewhere:
    """Trains nothing: for exports, whatever serves the model."""

    model: str | Backend | None
    nothing: Mapping[str, Any] = field(default_factory=dict)

    def serve(self, ref: ModelRef) -> str | Backend | None:
        return self.model

    def train(
        self, found: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig, out: Path
    ) -> ModelRef:
        raise ConfigError("training happens elsewhere; export the rows (--export FILE)")

    def publish(self, ref: ModelRef, out: Path) -> None:
        raise ConfigError("training happens elsewhere; export the rows (--export FILE)")

    def report(self, out: Path) -> Mapping[str, Any]:
        return self.nothing


def require_trainable(folder: str, device: str) -> None:
    """Make sure, before anything is paid, that a model can be trained here.

    Raises
    ------
    ConfigError
        If the folder holds no model with a chat template and a stop token, or ``device`` isn't there.
    MissingExtraError
        If TRL or PEFT are not installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r}; use auto, cpu or cuda")
    base = ModelRef.of(folder)
    if not Path(base.base).is_dir():
        raise ConfigError(
            f"{base.base} is no folder; training needs a model's folder with safetensors weights"
        )
    import agentcomm.dialogue.training  # noqa: F401 -- says what is not installed
    from agentcomm.backends.hf import load_tokenizer

    load_tokenizer(base.base)
