"""Export: training rows, settings and token statistics for a trainer elsewhere.

:class:`ExportTrainer` writes what TRL reads: ``train.jsonl`` and ``validation.jsonl`` (split by item),
``trl_config.json`` (the arguments of ``SFTConfig`` or ``DPOConfig``), ``lora_config.json`` and, last,
``manifest.json`` with token statistics and the SHA-256 of each file. It needs no torch.

TRL cuts rows that are longer than ``max_length`` and drops those whose prompt fills it, without an
error. So lengths are counted first: where more than 1 % of the rows would not fit, nothing is
written; the few that don't fit otherwise are left out, counted, never cut.

With a ChatML template TRL's own rendering also puts loss on the line break after the stop token;
:mod:`agentcomm.dialogue.training` ends the loss with the stop token.

Deliberately absent: training (:mod:`agentcomm.dialogue.training`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from agentcomm.backends.adapters import ModelRef as ModelRef
from agentcomm.backends.chat_template import ChatTokenizer, prompt_ids, require_template
from agentcomm.backends.chat_template import has_system_role as has_system_role
from agentcomm.dialogue.rows import AnyRow, PreferenceRow, Row, split, write_rows, write_text
from agentcomm.errors import ConfigError
from agentcomm.message import ChatMessage, content_id

Method = Literal["sft", "dpo", "rpo"]
METHODS: tuple[Method, ...] = ("sft", "dpo", "rpo")
MOST_OVER_LONG = 0.01

R = TypeVar("R", Row, PreferenceRow)

Counter = Callable[[Sequence[ChatMessage], str], tuple[int, int]]
"""Tokens of a prompt, and of the prompt with a text said after it, under a chat template."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train: LoRA on all linear layers.

    Parameters
    ----------
    method:
        ``"sft"`` imitates; ``"dpo"`` prefers; ``"rpo"`` is DPO with the SFT term
        (``loss = dpo + alpha * nll / tokens``).
    learning_rate:
        By default 2e-4 for SFT and 1e-5 for the others.
    epochs, max_steps:
        Passes over the rows; ``max_steps`` ends sooner.
    batch_size, accumulate:
        Rows a forward pass; passes a step.
    beta, alpha:
        Of DPO; weight of the SFT term.
    rank, lora_alpha, dropout:
        Of the adapter; ``lora_alpha`` is twice the rank by default.
    max_length:
        Tokens of the longest row allowed; by default the longest row, rounded up to 64.
    validation:
        Percent of the items; by default 2 for SFT, 10 for the others.
    bf16:
        Whether to compute in bfloat16.
    save_steps:
        Steps between checkpoints.
    seed:
        Of the split, the adapter and the order of rows.
    """

    method: Method = "sft"
    learning_rate: float | None = None
    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 4
    accumulate: int = 1
    beta: float = 0.1
    alpha: float = 1.0
    rank: int = 8
    lora_alpha: int | None = None
    dropout: float = 0.0
    max_length: int | None = None
    validation: int | None = None
    bf16: bool = False
    save_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"training method {self.method!r}; there are {', '.join(METHODS)}")
        for name in ("learning_rate", "epochs", "max_steps", "batch_size", "accumulate", "beta", "rank",
                     "lora_alpha", "max_length", "save_steps"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"training: {name}={value}; it must be above 0")
        if not (self.alpha >= 0 and 0 <= self.dropout < 1):
            raise ConfigError(
                f"training: alpha={self.alpha} must be from 0, dropout={self.dropout} in [0, 1)"
            )

    @property
    def preference(self) -> bool:
        return self.method != "sft"

    @property
    def validation_percent(self) -> int:
        if self.validation is not None:
            return self.validation
        return 10 if self.preference else 2

    def trl(self, max_length: int, *, steps: int, use_cpu: bool) -> dict[str, Any]:
        """The arguments of TRL's ``SFTConfig`` or ``DPOConfig`` (TRL 1.16), without ``output_dir``.

        ``steps`` are those of the whole training: a tenth of them is warm-up.
        """
        found: dict[str, Any] = {
            "learning_rate": self.learning_rate or (1e-5 if self.preference else 2e-4),
            "num_train_epochs": self.epochs,
            "max_steps": -1 if self.max_steps is None else self.max_steps,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": steps // 10,
            "max_length": max_length,
            "use_cpu": use_cpu,
            "bf16": self.bf16,
            "save_steps": self.save_steps,
            "seed": self.seed,
            "report_to": "none",
        }
        if not self.preference:
            return {**found, "completion_only_loss": True, "packing": False}
        if self.method == "dpo":
            return {**found, "beta": self.beta, "loss_type": ["sigmoid"]}
        return {
            **found,
            "beta": self.beta,
            "loss_type": ["sigmoid", "sft"],
            "loss_weights": [1.0, self.alpha],
        }

    def lora(self) -> dict[str, Any]:
        """The arguments of PEFT's ``LoraConfig``."""
        return {
            "r": self.rank,
            "lora_alpha": self.lora_alpha or 2 * self.rank,
            "lora_dropout": self.dropout,
            "target_modules": "all-linear",
            "task_type": "CAUSAL_LM",
        }

    def steps(self, rows: int) -> int:
        """Optimiser steps over so many rows."""
        if self.max_steps is not None:
            return self.max_steps
        per_epoch = math.ceil(math.ceil(rows / self.batch_size) / self.accumulate)
        return math.ceil(self.epochs * per_epoch)


class Trainer(Protocol):
    """Makes a model from another and rows."""

    def train(
        self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig
    ) -> ModelRef:
        """The trained model; ``base`` itself where the training happens elsewhere.

        Raises
        ------
        ConfigError
            For rows that don't suit the method or are too long, or a model that can't be trained.
        RunError
            If something can't be written.
        """
        ...


@dataclass(frozen=True)
class Lengths:
    """Token statistics of rows.

    Parameters
    ----------
    counted_by:
        The tokeniser's name.
    rows:
        How many were counted.
    max_length:
        The limit: given, or the longest row rounded up to 64.
    over_long:
        Places of the rows that exceed it (of a preference row, the longer text counts).
    prompt_tokens, completion_tokens:
        Sums; a preference row's prompt counts once for each text, as it is read.
    longest, median, p95:
        Of whole rows.
    """

    counted_by: str
    rows: int
    max_length: int
    over_long: tuple[int, ...]
    prompt_tokens: int
    completion_tokens: int
    longest: int
    median: float
    p95: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "over_long": list(self.over_long)}


def lengths(
    found: Sequence[AnyRow],
    counter: Counter,
    *,
    counted_by: str,
    max_length: int | None = None,
    context: int | None = None,
) -> Lengths:
    """Token statistics of rows.

    Parameters
    ----------
    context:
        Tokens that the model can read, where that is known: ``max_length`` is no more.

    Raises
    ------
    ConfigError
        Without rows, or where more than 1 % of them exceed ``max_length``.
    """
    if not found:
        raise ConfigError(
            "there are no rows to train on; lower the threshold of the selection or sample more dialogues"
        )
    counts = [[counter(row.prompt, text) for text in row.texts] for row in found]
    whole = np.array([max(total for _, total in of) for of in counts])
    limit = max_length or 64 * math.ceil(int(whole.max()) / 64)
    name = "max_length"
    if context is not None and context < limit:
        limit, name = context, "the model's context"
    over = tuple(int(i) for i in np.flatnonzero(whole > limit))
    if len(over) > MOST_OVER_LONG * len(found):
        filled = sum(counts[i][0][0] >= limit for i in over)
        raise ConfigError(
            f"{len(over)} of {len(found)} rows are longer than {name}={limit} tokens ({filled} by their "
            f"prompt alone; the longest has {int(whole.max())}); "
            + ("raise max_length or " if name == "max_length" else "")
            + "leave these items out"
        )
    return Lengths(
        counted_by=counted_by,
        rows=len(found),
        max_length=limit,
        over_long=over,
        prompt_tokens=sum(prompt for of in counts for prompt, _ in of),
        completion_tokens=sum(total - prompt for of in counts for prompt, total in of),
        longest=int(whole.max()),
        median=float(np.median(whole)),
        p95=float(np.quantile(whole, 0.95)),
    )


def fitting(found: Sequence[R], counted: Lengths) -> list[R]:
    """The rows that are not over-long."""
    left_out = set(counted.over_long)
    return [row for place, row in enumerate(found) if place not in left_out]


def suited(found: Sequence[Row] | Sequence[PreferenceRow], config: TrainConfig) -> None:
    """Refuse rows of the wrong kind for a method.

    Raises
    ------
    ConfigError
        If there are any.
    """
    wanted = PreferenceRow if config.preference else Row
    if not all(isinstance(row, wanted) for row in found):
        kind = "preference rows (preference_rows)" if config.preference else "rows to imitate (rows)"
        raise ConfigError(f"method {config.method!r} needs {kind}; these are of the other kind")


# --------------------------------------------------------------------------- tokenisers


def counter_of(tokenizer: ChatTokenizer) -> Counter:
    """Counts with a transformers tokenizer and its chat template.

    Raises
    ------
    ConfigError
        Without a chat template.
    """
    require_template(tokenizer)
    system = has_system_role(tokenizer)

    def count(prompt: Sequence[ChatMessage], text: str) -> tuple[int, int]:
        asked = prompt_ids(tokenizer, prompt, system=system)
        return len(asked), len(prompt_ids(tokenizer, prompt, said=text, system=system))

    return count


def by_bytes(prompt: Sequence[ChatMessage], text: str) -> tuple[int, int]:
    """An upper-side guess without a tokenizer: a token for three bytes, and eight a message for the template."""
    asked = sum(8 + math.ceil(len(m.content.encode("utf-8", "replace")) / 3) for m in prompt)
    return asked, asked + 8 + math.ceil(len(text.encode("utf-8", "replace")) / 3)


# ------------------------------------------------------------------------------ export


@dataclass(frozen=True)
class ExportTrainer:
    """Writes rows and settings for training elsewhere.

    Parameters
    ----------
    out:
        A folder.
    tokenizer:
        The model's (transformers), for token statistics; without one they are guessed from bytes,
        and the manifest says so.
    """

    out: Path
    tokenizer: ChatTokenizer | None = field(default=None, repr=False)

    def train(
        self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig
    ) -> ModelRef:
        """Writes the files; returns ``base``, which is unchanged.

        Raises
        ------
        ConfigError
            For rows of the wrong kind, none, or more than 1 % over-long ones; nothing is written then.
        RunError
            If a file can't be written.
        """
        self.export(rows, base, config)
        return base

    def export(
        self, rows: Sequence[Row] | Sequence[PreferenceRow], base: ModelRef, config: TrainConfig
    ) -> dict[str, Any]:
        """As :meth:`train`, and returns the manifest."""
        suited(rows, config)
        counter = by_bytes if self.tokenizer is None else counter_of(self.tokenizer)
        name = "bytes/3" if self.tokenizer is None else str(self.tokenizer.name_or_path)
        counted = lengths(rows, counter, counted_by=name, max_length=config.max_length)
        kept: list[Any] = fitting(list(rows), counted)
        parts = split(kept, config.validation_percent, seed=config.seed)
        steps = config.steps(len(parts.train))
        write_rows(self.out / "train.jsonl", parts.train)
        write_rows(self.out / "validation.jsonl", parts.validation)
        settings = config.trl(counted.max_length, steps=steps, use_cpu=False)
        write_text(self.out / "trl_config.json", _json(settings))
        write_text(self.out / "lora_config.json", _json(config.lora()))
        names = ("train.jsonl", "validation.jsonl", "trl_config.json", "lora_config.json")
        manifest = {
            "method": config.method,
            "trainer": "DPOTrainer" if config.preference else "SFTTrainer",
            "base": base.to_dict(),
            "config": asdict(config),
            "config_sha256": content_id(asdict(config)),
            "rows": {"train": len(parts.train), "validation": len(parts.validation)},
            "left_out": len(counted.over_long),
            "steps": steps,
            "tokens": counted.to_dict(),
            "sha256": {name: hashlib.sha256((self.out / name).read_bytes()).hexdigest() for name in names},
        }
        write_text(self.out / "manifest.json", _json(manifest))
        return manifest


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
