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

import importlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError

from agentcomm.backends.adapters import CARD, ModelRef, adapter_card, fingerprint, merged_card
from agentcomm.backends.chat_template import has_system_role, prompt_ids
from agentcomm.backends.hf import context_of, first_line, load_model, load_tokenizer, require_folder, stop_ids
from agentcomm.dialogue.export import MOST_OVER_LONG, TrainConfig, fitting, lengths, suited
from agentcomm.dialogue.rows import AnyRow, PreferenceRow, Row, split, write_text
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

_DONE = "COMPLETE"
_STATE = "trainer_state.json"
_UNLABELLED = -100


class Encoded(NamedTuple):
    """Token ids of a prompt and of each text that may follow it, stop token included."""

    prompt: list[int]
    texts: tuple[list[int], ...]


def save_merged(ref: ModelRef, out: Path) -> ModelRef:
    """The model with all its adapters merged, as a folder of its own: for servers without LoRA.

    Raises
    ------
    ConfigError
        If the folder holds no model, or an adapter was trained on other weights.
    RunError
        If it can't be written.
    """
    model, tokenizer = load_model(ref, merge=True), load_tokenizer(ref.base)
    beside = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        write_text(beside / CARD, json.dumps(merged_card(ref, beside), indent=1) + "\n")
        beside.replace(out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise RunError(
            f"the merged model can't be written to {out} ({first_line(error)}); make space or name a new folder"
        ) from error
    return ModelRef(str(out))


# --------------------------------------------------------------------------- rendering


def encode(tokenizer: Any, row: AnyRow, *, system: bool = True, stops: Sequence[int] = ()) -> Encoded:
    """A row in tokens: the prompt as a call has it, each text with its stop token and nothing behind it.

    Parameters
    ----------
    system:
        Whether the template shows a system message; if not, it is folded into the first user message.
    stops:
        Tokens that end a reply; by default the tokenizer's.

    Raises
    ------
    ConfigError
        If the template renders a prompt differently once it is answered, or ends no turn with a stop
        token, or a text is empty or holds one.
    """
    where = f"item {row.meta.item!r}, turn {row.meta.turn}"
    asked = prompt_ids(tokenizer, row.prompt, system=system)
    ends = set(stops or stop_ids(tokenizer))
    texts = []
    for text in row.texts:
        if not text.strip():
            raise ConfigError(f"{where}: an empty text has nothing to learn from; leave this row out")
        whole = prompt_ids(tokenizer, row.prompt, said=text, system=system)
        if whole[: len(asked)] != asked:
            raise ConfigError(
                "this model's chat template renders a prompt differently once it is answered, so it can't be "
                "trained on the prompts that calls have; use another template"
            )
        tail = whole[len(asked) :]
        found = [place for place, token in enumerate(tail) if token in ends]
        if len(found) != 1:
            raise ConfigError(
                f"{where}: {len(found)} stop tokens ({tokenizer.eos_token!r}) in what was said, where the "
                "template should end it with one"
            )
        texts.append(tail[: found[0] + 1])
    return Encoded(asked, tuple(texts))


def _encoded(
    tokenizer: Any, rows: Sequence[AnyRow], stops: Sequence[int]
) -> tuple[list[tuple[AnyRow, Encoded]], list[str]]:
    """Rows with their tokens, and why others are left out; more than 1 % of them is an error."""
    system = has_system_role(tokenizer)
    encoded, refused = [], []
    for row in rows:
        try:
            encoded.append((row, encode(tokenizer, row, system=system, stops=stops)))
        except ConfigError as error:
            refused.append(str(error))
    if len(refused) > MOST_OVER_LONG * len(rows):
        raise ConfigError(f"{len(refused)} of {len(rows)} rows can't be trained on: {refused[0]}")
    return encoded, refused


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
        require_folder(Path(base.base))
        job = self._job(rows, base, config)
        done = ModelRef(base.base, (*base.adapters, str(self.out / "adapter")))
        if (self.out / "report.json").exists() and self._same(job):
            return done
        began = time.monotonic()
        trainer = self.prepare(rows, base, config)
        self._claim(job)
        last = self._last_checkpoint()
        try:
            if last is not None and _at_its_end(last):  # resumed, it would take a step too many
                trainer._load_from_checkpoint(str(last))
                trainer.state = transformers.TrainerState.load_from_json(str(last / _STATE))
            else:
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
            # Of all steps: the library's own mean leaves out those before an interruption.
            losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
            _require_finite(trainer, losses)
            validation = _validated(trainer)
            self._save(trainer, base, config)
        except (OSError, SafetensorError, RuntimeError, RunError) as error:
            if not _about_the_disk(error):
                raise
            kept = self._last_checkpoint()
            where = "there is no checkpoint yet" if kept is None else f"the last checkpoint is {kept}"
            raise RunError(
                f"training stopped at step {trainer.state.global_step}, because {self.out} can't be written "
                f"({first_line(error)}); {where}; make space and give the same command again"
            ) from error
        report = {
            "steps": trainer.state.global_step,
            "loss": math.fsum(losses) / len(losses) if losses else None,
            **validation,
            **trainer.agentcomm,
            "tokens_seen": int(trainer.agentcomm["tokens"] * trainer.state.epoch),
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
        # Merged, or the reference would be the base, not the last iteration's model.
        model = load_model(base, merge=True)
        encoded, refused = _encoded(tokenizer, rows, stop_ids(tokenizer, model))
        sizes = {
            (row.prompt, text): (len(e.prompt), len(e.prompt) + len(ids))
            for row, e in encoded
            for text, ids in zip(row.texts, e.texts, strict=True)
        }
        counted = lengths(
            [row for row, _ in encoded],
            lambda prompt, text: sizes[tuple(prompt), text],
            counted_by=base.base,
            max_length=config.max_length,
            context=context_of(model),
        )
        ids_of = {id(row): e for row, e in encoded}
        kept: list[Any] = fitting([row for row, _ in encoded], counted)
        parts = split(kept, config.validation_percent, seed=config.seed)
        train, held = ([ids_of[id(row)] for row in part] for part in parts)
        arguments = {
            **config.trl(counted.max_length, steps=config.steps(len(train)), use_cpu=cpu),
            "output_dir": str(self.out / "checkpoints"),
            "save_strategy": "steps",
            "save_total_limit": 2,
            "per_device_eval_batch_size": config.batch_size,
            "gradient_checkpointing": not cpu,
            "disable_tqdm": True,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # it would hide that a training diverged
            "dataloader_pin_memory": not cpu,
        }
        common = {
            "model": model,
            "processing_class": tokenizer,
            "peft_config": peft.LoraConfig(**config.lora()),
            "callbacks": [_Marker()],
        }
        transformers.set_seed(config.seed)
        columns = _dpo_columns if config.preference else _sft_columns
        common["train_dataset"] = datasets.Dataset.from_dict(columns(train))
        common["eval_dataset"] = datasets.Dataset.from_dict(columns(held)) if held else None
        if config.preference:
            trainer: Any = _TokenisedDPO(args=trl.DPOConfig(**arguments), **common)
        else:
            trainer = trl.SFTTrainer(args=trl.SFTConfig(**arguments), **common)
        trainer.agentcomm = {
            "rows": len(train),
            "validation_rows": len(held),
            "over_long": len(counted.over_long),
            "refused": refused,
            "tokens": sum(len(e.prompt) + len(t) for e in train for t in e.texts),
        }
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
        card = adapter_card(base, self.out / "adapter", asdict(config))
        write_text(beside / CARD, json.dumps(card, indent=1) + "\n")
        shutil.rmtree(self.out / "adapter", ignore_errors=True)
        beside.replace(self.out / "adapter")


def _at_its_end(checkpoint: Path) -> bool:
    """Whether all steps were done: what was missing is only that the adapter was saved."""
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return int(state["global_step"]) >= int(state["max_steps"])


def _require_finite(trainer: Any, losses: Sequence[float]) -> None:
    """A training whose losses or weights are no numbers is none."""
    trained = (p for p in trainer.model.parameters() if p.requires_grad)
    if not all(map(math.isfinite, losses)) or not all(bool(p.isfinite().all()) for p in trained):
        raise ConfigError(
            f"training diverged within {trainer.state.global_step} steps, and nothing was saved; "
            f"lower the learning rate ({trainer.args.learning_rate:g})"
        )


def _validated(trainer: Any) -> dict[str, float]:
    """Loss, and for pairs the reward margin, on rows of items that were not trained on."""
    if trainer.eval_dataset is None:
        return {}
    found = trainer.evaluate()
    names = {"eval_loss": "validation_loss", "eval_rewards/margins": "validation_margin"}
    return {names[key]: float(value) for key, value in found.items() if key in names}


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
