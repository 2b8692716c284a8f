"""Joined: the adapters of several iterations as one adapter on the base model.

Each was trained with those before it merged into the weights, and LoRA only adds: ``W + s1 B1 A1 +
s2 B2 A2`` is one adapter of rank r1 + r2. One adapter is what vLLM serves, and a folder that needs no
other. The factors ``s = alpha / r`` go into the B's.

Deliberately absent: torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agentcomm.backends.adapters import CARD, ModelRef, adapter_card
from agentcomm.errors import ConfigError, RunError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def join(ref: ModelRef, out: Path) -> ModelRef:
    """The same model with all its adapters as one, in the folder ``out``; it is replaced as a whole.

    Raises
    ------
    ConfigError
        If an adapter can't be read or isn't plain LoRA, or there is none.
    RunError
        If ``out`` can't be written.
    """
    if not ref.adapters:
        raise ConfigError(f"{ref.base} has no adapters to join")
    parts = [_read(Path(folder)) for folder in ref.adapters]
    names = parts[0][1].keys()
    if any(weights.keys() != names for _, weights in parts):
        raise ConfigError(
            "these adapters are on different layers of the model; train them with the same settings"
        )
    joined = {}
    for name in names:
        if ".lora_A." in name:
            joined[name] = np.concatenate([weights[name] for _, weights in parts], axis=0)
        elif ".lora_B." in name:
            scaled = [weights[name] * (config["lora_alpha"] / config["r"]) for config, weights in parts]
            joined[name] = np.concatenate(scaled, axis=1).astype(parts[0][1][name].dtype)
        else:
            raise ConfigError(f"the adapter {ref.adapters[0]} holds {name}, which is not LoRA's")
    rank = sum(config["r"] for config, _ in parts)
    config = {**parts[0][0], "r": rank, "lora_alpha": rank, "base_model_name_or_path": ref.base}
    beside = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_file(joined, beside / WEIGHTS, metadata={"format": "pt"})
        (beside / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        card = adapter_card(ModelRef(ref.base), out, {"joined": len(parts)})
        (beside / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        beside.replace(out)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the adapter {out} can't be written ({error}); make space and repeat the command"
        ) from error
    return ModelRef(ref.base, (str(out),))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"no adapter can be read from {folder}: {error}") from error
    if (
        config.get("use_rslora")
        or config.get("rank_pattern")
        or config.get("alpha_pattern")
        or config.get("use_dora")
    ):
        raise ConfigError(f"the adapter {folder} is not plain LoRA, so it can't be joined with others")
    return config, weights
