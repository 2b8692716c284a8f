"""TrlTrainer: LoRA on dialogue rows through TRL and PEFT, on a CPU or one GPU (extra ``train``).

    sft    imitate chosen turns
    dpo    prefer the better of two turns
    rpo    DPO with the SFT term: loss_type ["sigmoid", "sft"], weights [1, alpha]

The reference of a preference method is the model with its adapter switched off. From the second
iteration on the adapters before are therefore merged into the weights first, or the reference would
silently be the base model.

Loss lies on what the speaker said and on the stop token, and nowhere else. Rows are rendered with the
model's own chat template and tokenised here, because through TRL's rendering a ChatML template also
puts loss on the line break after the stop token. Rows that are too long are refused or counted
(:mod:`agentcomm.dialogue.export`); TRL never gets one that it would cut or drop.

An adapter is a folder with ``adapter_model.safetensors``, ``adapter_config.json`` and
``agentcomm.json``, which says by hash on which weights it was trained: on others it is refused.

Deliberately absent: which rows are good, several machines, full fine-tuning.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError

from agentcomm.dialogue.export import (
    ModelRef,
    TrainConfig,
    counter_of,
    fitting,
    has_system_role,
    lengths,
    require_template,
    suited,
)
from agentcomm.dialogue.rows import AnyRow, PreferenceRow, Row, folded, split, write_text
from agentcomm.errors import ConfigError, MissingExtraError, RunError
from agentcomm.message import content_id

# Their annotations differ from release to release, and types are checked without them installed too.
_LIBRARIES = ("transformers", "datasets", "peft", "trl")
transformers: Any
datasets: Any
peft: Any
trl: Any
try:
    transformers, datasets, peft, trl = map(importlib.import_module, _LIBRARIES)
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"training needs {error.name}, which is not installed; pip install 'agentcomm[train]'"
    ) from error

CARD = "agentcomm.json"
_DONE = "COMPLETE"
_UNLABELLED = -100


class Encoded(NamedTuple):
    """Token ids of a prompt and of each text that may follow it, stop token included."""

    prompt: list[int]
    texts: tuple[list[int], ...]


# ------------------------------------------------------------------------------ models


def load_tokenizer(base: str | Path) -> Any:
    """A folder's tokenizer.

    Raises
    ------
    ConfigError
        If it can't be read, has no chat template, or no stop token.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no tokenizer can be read from {base}: {_first_line(error)}") from error
    require_template(tokenizer)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer in {base} names no stop token (eos_token); add it to its config")
    return tokenizer


def load(ref: ModelRef, *, merge: bool = False) -> Any:
    """A model with its adapters: all but the last merged into its weights; with ``merge`` that one too.

    Raises
    ------
    ConfigError
        If the folder holds no model, or an adapter was trained on other weights.
    """
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            ref.base, local_files_only=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"no model can be read from {ref.base}: {_first_line(error)}") from error
    for place, adapter in enumerate(ref.adapters):
        _check_adapter(adapter, ModelRef(ref.base, ref.adapters[:place]))
        model = peft.PeftModel.from_pretrained(model, adapter)
        if merge or place < len(ref.adapters) - 1:
            model = model.merge_and_unload()
    return model


def save_merged(ref: ModelRef, out: Path) -> ModelRef:
    """The model with all its adapters merged, as a folder of its own: for servers without LoRA.

    Raises
    ------
    RunError
        If it can't be written.
    """
    try:
        load(ref, merge=True).save_pretrained(out)
        load_tokenizer(ref.base).save_pretrained(out)
    except (OSError, SafetensorError) as error:
        raise RunError(f"the merged model can't be written to {out} ({_first_line(error)})") from error
    return ModelRef(str(out))


def fingerprint(ref: ModelRef) -> str:
    """SHA-256 of a model: its configuration, weights and adapters, wherever they lie.

    Raises
    ------
    ConfigError
        If the folder has no safetensors weights.
    """
    parts = [_digests(Path(ref.base), ("config.json", "*.safetensors"))]
    parts += [_digests(Path(a), ("adapter_config.json", "*.safetensors")) for a in ref.adapters]
    return content_id(*parts)


def _digests(folder: Path, patterns: tuple[str, ...]) -> list[list[str]]:
    found = []
    for path in sorted(p for pattern in patterns for p in folder.glob(pattern)):
        if path.name == "adapter_config.json":
            # It names the folder of its base: of no meaning elsewhere.
            data = json.loads(path.read_text(encoding="utf-8"))
            found.append([path.name, content_id({**data, "base_model_name_or_path": ""})])
            continue
        with path.open("rb") as file:
            found.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    if not any(name.endswith(".safetensors") for name, _ in found):
        raise ConfigError(f"{folder} holds no safetensors weights; save the model there first")
    return found


def _check_adapter(adapter: str, below: ModelRef) -> None:
    try:
        trained_on = json.loads((Path(adapter) / CARD).read_text(encoding="utf-8"))["trained_on"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{adapter} is no adapter of agentcomm train (no readable {CARD}); name its adapter folder"
        ) from error
    if trained_on != fingerprint(below):
        before = f" with {len(below.adapters)} adapters before it" if below.adapters else ""
        raise ConfigError(
            f"the adapter {adapter} was trained on another base model than {below.base}{before}; "
            "use it with the model it was trained on"
        )


# --------------------------------------------------------------------------- rendering


def encode(tokenizer: Any, row: AnyRow, *, system: bool = True) -> Encoded:
    """A row in tokens: the prompt as a call has it, each text with its stop token and nothing behind it.

    Parameters
    ----------
    system:
        Whether the template shows a system message; if not, it is folded into the first user message.

    Raises
    ------
    ConfigError
        If the template renders a prompt differently once it is answered, or ends no turn with a stop
        token, or a text holds one.
    """
    chat = [m.as_dict() for m in (row.prompt if system else folded(row.prompt))]
    # transformers 5 returns a mapping
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    stop = int(tokenizer.eos_token_id)
    texts = []
    for text in row.texts:
        said = [*chat, {"role": "assistant", "content": text}]
        whole = tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
        if whole[: len(asked)] != asked:
            raise ConfigError(
                "this model's chat template renders a prompt differently once it is answered, so it can't be "
                "trained on the prompts that calls have; use another template"
            )
        tail = whole[len(asked) :]
        if tail.count(stop) != 1:
            raise ConfigError(
                f"item {row.meta.item!r}, turn {row.meta.turn}: {tail.count(stop)} stop tokens "
                f"({tokenizer.eos_token!r}) in what was said, where the template should end it with one"
            )
        texts.append(list(tail[: tail.index(stop) + 1]))
    return Encoded(list(asked), tuple(texts))


def _sft_columns(encoded: Sequence[Encoded]) -> dict[str, list[list[int]]]:
    return {
        "input_ids": [e.prompt + e.texts[0] for e in encoded],
        "labels": [[_UNLABELLED] * len(e.prompt) + e.texts[0] for e in encoded],
    }


def _dpo_columns(encoded: Sequence[Encoded]) -> dict[str, list[list[int]]]:
    return {
        "prompt_ids": [e.prompt for e in encoded],
        "chosen_ids": [e.texts[0] for e in encoded],
        "rejected_ids": [e.texts[1] for e in encoded],
    }


class _TokenisedDPO(trl.DPOTrainer):  # type: ignore[misc]
    """TRL 1.16 offers no way to pass tokens to DPO; its own columns are kept where they are there."""

    def _prepare_dataset(self, dataset: Any, *rest: Any, **more: Any) -> Any:
        if "prompt_ids" in dataset.column_names:
            return dataset
        return super()._prepare_dataset(dataset, *rest, **more)


class _Marker(transformers.TrainerCallback):  # type: ignore[misc]
    """Marks checkpoints that are whole: one that a full disk cut off is never resumed from."""

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_text(folder / _DONE, "")


# ---------------------------------------------------------------------------- training


@dataclass(frozen=True)
class TrlTrainer:
    """Trains an adapter in a folder; the same call again goes on after the last whole checkpoint.

    Parameters
    ----------
    out:
        Gets ``adapter/``, ``report.json`` and, while it trains, ``checkpoints/``.
    device:
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one.
    """

    out: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def train(
        self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig
    ) -> ModelRef:
        """The base with one adapter more.

        Raises
        ------
        ConfigError
            For rows of the wrong kind, none, or over-long ones; a model without a chat template; an
            adapter of another base model; a folder that holds another training.
        RunError
            If the disk fills: the last whole checkpoint stays.
        """
        job = self._job(rows, base, config)
        done = ModelRef(base.base, (*base.adapters, str(self.out / "adapter")))
        if (self.out / "report.json").exists() and self._same(job):
            return done
        began = time.monotonic()
        trainer = self.prepare(rows, base, config)
        self._claim(job)
        last = self._last_checkpoint()
        try:
            result = trainer.train(resume_from_checkpoint=None if last is None else str(last))
            self._save(trainer, base, config)
        except (OSError, SafetensorError, RuntimeError, RunError) as error:
            if not _about_the_disk(error):
                raise
            kept = self._last_checkpoint()
            where = "there is no checkpoint yet" if kept is None else f"the last checkpoint is {kept}"
            raise RunError(
                f"training stopped at step {trainer.state.global_step}, because {self.out} can't be written "
                f"({_first_line(error)}); {where}; make space and give the same command again"
            ) from error
        report = {
            "steps": trainer.state.global_step,
            "loss": result.training_loss,
            "tokens_seen": int(trainer.agentcomm_tokens * trainer.state.epoch),
            "device": str(trainer.args.device),
            "device_seconds": round(time.monotonic() - began, 3),
            "resumed_from": None if last is None else last.name,
            "log": trainer.state.log_history,
        }
        write_text(self.out / "report.json", json.dumps(report, indent=1) + "\n")
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        return done

    def prepare(
        self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig
    ) -> Any:
        """TRL's trainer, ready to train: for a look at what it would train on.

        Raises
        ------
        ConfigError
            As :meth:`train`.
        """
        suited(rows, config)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device 'cuda', but torch finds no GPU here; use device='cpu'")
        cpu = self.device == "cpu" or not torch.cuda.is_available()
        tokenizer = load_tokenizer(base.base)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        counted = lengths(
            rows, counter_of(tokenizer), counted_by=str(base.base), max_length=config.max_length
        )
        kept: list[Any] = fitting(list(rows), counted)
        parts = split(kept, config.validation_percent, seed=config.seed)
        system = has_system_role(tokenizer)
        encoded = [encode(tokenizer, row, system=system) for row in parts.train]
        model = load(base, merge=True)  # or the reference would be the base, not the last iteration's model
        room = getattr(model.config, "max_position_embeddings", None)
        if room is not None and counted.longest > room:
            raise ConfigError(
                f"the longest row has {counted.longest} tokens, but the model's context holds {room}; "
                "leave long items out or set max_length"
            )
        arguments = {
            **config.trl(counted.max_length, steps=config.steps(len(encoded)), use_cpu=cpu),
            "output_dir": str(self.out / "checkpoints"),
            "save_strategy": "steps",
            "save_total_limit": 2,
            "gradient_checkpointing": not cpu,
            "disable_tqdm": True,
            "logging_steps": 1,
            "dataloader_pin_memory": not cpu,
        }
        common = {
            "model": model,
            "processing_class": tokenizer,
            "peft_config": peft.LoraConfig(**config.lora()),
            "callbacks": [_Marker()],
        }
        transformers.set_seed(config.seed)
        if config.preference:
            data = datasets.Dataset.from_dict(_dpo_columns(encoded))
            trainer: Any = _TokenisedDPO(args=trl.DPOConfig(**arguments), train_dataset=data, **common)
        else:
            data = datasets.Dataset.from_dict(_sft_columns(encoded))
            trainer = trl.SFTTrainer(args=trl.SFTConfig(**arguments), train_dataset=data, **common)
        trainer.agentcomm_tokens = sum(len(e.prompt) + len(t) for e in encoded for t in e.texts)
        return trainer

    # -- what lies in the folder ---------------------------------------------------------

    def _job(self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig) -> str:
        return content_id([row.to_dict() for row in rows], fingerprint(base), asdict(config))

    def _same(self, job: str) -> bool:
        """Whether the folder holds this training; another one is refused."""
        path = self.out / "job.json"
        if not path.exists():
            return False
        if json.loads(path.read_text(encoding="utf-8"))["job"] != job:
            raise ConfigError(
                f"{self.out} holds a training on other rows, another model or other settings; name another folder"
            )
        return True

    def _claim(self, job: str) -> None:
        if not self._same(job):
            write_text(self.out / "job.json", json.dumps({"job": job}) + "\n")

    def _last_checkpoint(self) -> Path | None:
        folders = sorted(
            (self.out / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[1])
        )
        whole = [folder for folder in folders if (folder / _DONE).exists()]
        for folder in folders:
            if folder not in whole:
                shutil.rmtree(folder, ignore_errors=True)
        return whole[-1] if whole else None

    def _save(self, trainer: Any, base: ModelRef, config: TrainConfig) -> None:
        beside = self.out / "adapter.part"
        shutil.rmtree(beside, ignore_errors=True)
        trainer.model.save_pretrained(str(beside), safe_serialization=True)
        card = {"trained_on": fingerprint(base), "base": base.to_dict(), "config": asdict(config)}
        write_text(beside / CARD, json.dumps(card, indent=1) + "\n")
        shutil.rmtree(self.out / "adapter", ignore_errors=True)
        beside.replace(self.out / "adapter")


def _about_the_disk(error: BaseException) -> bool:
    """torch and safetensors say it in words of their own, as RuntimeError or SafetensorError."""
    if isinstance(error, (OSError, RunError)):
        return True
    text = str(error).lower()
    words = (
        "no space left",
        "file too large",
        "i/o error",
        "pytorchstreamwriter",
        "inline_container",
        "os error",
    )
    return any(word in text for word in words)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
