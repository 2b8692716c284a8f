"""Adapters: a model is a folder of weights and the adapters on it, each known by hash.

An adapter is a folder with ``adapter_model.safetensors``, ``adapter_config.json`` and ``agentcomm.json``,
which says by hash on which weights it was trained: on others it is refused. An adapter of a later
iteration was trained with those before it merged into the weights, and its card names them, so naming
the last one is enough.

A model string names them after its folder: ``hf/FOLDER+ADAPTER+ADAPTER``, ``vllm/FOLDER+ADAPTER``.

Deliberately absent: torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from agentcomm.errors import ConfigError
from agentcomm.message import content_id

CARD = "agentcomm.json"


@dataclass(frozen=True)
class ModelRef:
    """A model: a folder of weights and the adapters on it, each trained with those before it merged.

    >>> str(ModelRef("base", ("one", "two")))
    'base+one+two'
    """

    base: str
    adapters: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join((self.base, *self.adapters))

    def to_dict(self) -> dict[str, Any]:
        return {"base": self.base, "adapters": list(self.adapters)}

    @classmethod
    def of(cls, text: str) -> Self:
        """What a model string names after its provider; a folder may itself have a ``+`` in its name.

        >>> ModelRef.of("a/b")
        ModelRef(base='a/b', adapters=())
        """
        parts = text.split("+")
        found: list[str] = []
        while parts:
            whole = ["+".join(parts[:n]) for n in range(len(parts), 0, -1)]
            name = next((name for name in whole if Path(name).is_dir()), parts[0])
            parts = parts[name.count("+") + 1 :]
            found.append(name)
        if not all(found):
            raise ConfigError(f"model {text!r}: write FOLDER+ADAPTER")
        return cls(found[0], tuple(found[1:]))


def stacked(base: ModelRef, adapter: str | Path) -> ModelRef:
    """The model that an adapter makes of ``base``: with the adapters that it was trained on.

    Raises
    ------
    ConfigError
        If it is no adapter folder, or those before it are gone.
    """
    below = []
    for relative, written in _card(adapter).get("below", []):
        places = (Path(os.path.normpath(Path(adapter) / relative)), Path(written))
        place = next((p for p in places if (p / CARD).is_file()), None)
        if place is None:
            raise ConfigError(
                f"the adapter {adapter} was trained on top of {written}, which isn't there; keep the adapters "
                "of all iterations together"
            )
        below.append(str(place))
    known = base.adapters
    return ModelRef(base.base, (*known, *below[len(known) :], str(adapter)))


def with_adapter(model: str | None, adapter: str | Path) -> str:
    """A model string with an adapter (``--adapter``).

    Raises
    ------
    ConfigError
        If that model can't have one, or ``adapter`` is none.
    """
    provider, _, name = (model or "").partition("/")
    if provider not in ("hf", "vllm"):
        raise ConfigError(
            f"an adapter goes with --model hf/FOLDER or vllm/FOLDER, not with {model or 'no model'!r}"
        )
    return f"{provider}/{stacked(ModelRef.of(name), adapter)}"


# ------------------------------------------------------------------------------ hashes


def fingerprint(ref: ModelRef) -> str:
    """SHA-256 of a model: its configuration, weights and adapters, wherever they lie.

    Raises
    ------
    ConfigError
        If a folder has no safetensors weights.
    """
    parts = [_digests(Path(ref.base), ("config.json", "*.safetensors"))]
    parts += [_digests(Path(a), ("adapter_config.json", "*.safetensors")) for a in ref.adapters]
    return content_id(*parts)


def check_adapters(ref: ModelRef) -> None:
    """Refuse adapters that were trained on other weights.

    Raises
    ------
    ConfigError
        With the first one.
    """
    for place, adapter in enumerate(ref.adapters):
        below = ModelRef(ref.base, ref.adapters[:place])
        if _card(adapter).get("trained_on") not in (fingerprint(below), _merged_from(below)):
            before = f" with {place} adapters before it" if place else ""
            raise ConfigError(
                f"the adapter {adapter} was trained on another base model than {ref.base}{before}; "
                "use it with the model it was trained on"
            )


def adapter_card(base: ModelRef, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What :data:`CARD` says in the folder of an adapter trained on ``base``."""
    below = [[os.path.relpath(a, folder), str(Path(a).absolute())] for a in base.adapters]
    return {
        "trained_on": fingerprint(base),
        "base": str(Path(base.base).absolute()),
        "below": below,
        "config": dict(config),
    }


def merged_card(ref: ModelRef, folder: Path) -> dict[str, Any]:
    """What :data:`CARD` says in the folder of ``ref`` merged: later adapters go with it too."""
    return {"merged_from": fingerprint(ref), "weights": fingerprint(ModelRef(str(folder)))}


def _merged_from(ref: ModelRef) -> str | None:
    """The hash of the model whose weights and adapters were merged into this folder, where it is one."""
    if ref.adapters or not (Path(ref.base) / CARD).is_file():
        return None
    card = _card(ref.base)
    return card.get("merged_from") if card.get("weights") == fingerprint(ref) else None


def _card(folder: str | Path) -> dict[str, Any]:
    try:
        card = json.loads((Path(folder) / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} is no adapter of agentcomm train (no readable {CARD}); name its adapter folder"
        ) from error
    if not isinstance(card, dict):
        raise ConfigError(f"{Path(folder) / CARD} is not a JSON object; name an adapter folder")
    return card


def _digests(folder: Path, patterns: tuple[str, ...]) -> list[list[str]]:
    found = []
    for path in sorted(p for pattern in patterns for p in folder.glob(pattern)):
        if path.name == "adapter_config.json":
            # It names the folder of its base: of no meaning elsewhere.
            data = json.loads(path.read_text(encoding="utf-8"))
            found.append([path.name, content_id({**data, "base_model_name_or_path": ""})])
        else:
            state = path.stat()
            found.append([path.name, _digest(path, state.st_size, state.st_mtime_ns)])
    if not any(name.endswith(".safetensors") for name, _ in found):
        raise ConfigError(f"{folder} holds no safetensors weights; save the model there first")
    return found


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
