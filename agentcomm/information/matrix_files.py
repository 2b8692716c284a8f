"""A score matrix as a JSON file: to estimate again without scoring again."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from agentcomm.errors import ConfigError, RunError
from agentcomm.information.score_matrix import ScoreMatrix

FORMAT = 1
_ARRAYS = ("logp", "row_context", "prior", "n_tokens", "n_bytes", "candidates")


def save_matrix(path: Path, matrix: ScoreMatrix) -> None:
    """Write it; failed cells are null, an impossible one is the text ``"-inf"``.

    Raises
    ------
    RunError
        If it can't be written.
    """
    data: dict[str, Any] = {"format": FORMAT}
    for field in fields(matrix):
        value = getattr(matrix, field.name)
        if field.name in _ARRAYS:
            data[field.name] = None if value is None else _plain(value.tolist())
        elif field.name == "reasons":
            data["reasons"] = [[row, column, reason] for (row, column), reason in sorted(value.items())]
        else:
            data[field.name] = value
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(data, allow_nan=False, ensure_ascii=True), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror}; free space or choose another --out") from error


def load_matrix(path: Path) -> ScoreMatrix:
    """Read it.

    Raises
    ------
    ConfigError
        If there is none in the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError("of another format")
        for name in _ARRAYS:
            if data[name] is not None:
                data[name] = np.array(_numbers(data[name]))
        data["reasons"] = {(row, column): reason for row, column, reason in data["reasons"]}
        for name in ("context_hashes", "query_hashes", "text_hashes", "seeds"):
            data[name] = None if data[name] is None else tuple(data[name])
        return ScoreMatrix(**data)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} holds no score matrix: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    return math.nan if value is None else float(value) if isinstance(value, str) else value
