"""A matrix comes back from its file as it was."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from agentcomm.errors import ConfigError, RunError
from agentcomm.information import draw_candidates, estimate_mi
from agentcomm.information.matrix_files import load_matrix, save_matrix
from agentcomm.information.scorers.offline import Codelength


def test_it_comes_back_bit_by_bit(tmp_path: Path) -> None:
    candidates = draw_candidates([0, 0, 1, 1, 2, 2], 3, 2, np.random.default_rng(0))
    texts: list[list[str | None]] = [["a", "b"], ["", None], ["c", "d"]]
    made = Codelength().score_matrix(["a x", "b y", "c z"], ["p", "q", "r"], texts, prior=True, seeds=[1, 2])
    logp = made.logp.copy()
    logp[0, 1], logp[1, 1] = -math.inf, math.nan
    for matrix in (made, replace(made, logp=logp, candidates=candidates)):
        save_matrix(tmp_path / "m.json", matrix)
        back = load_matrix(tmp_path / "m.json")
        for field in fields(matrix):
            np.testing.assert_equal(getattr(back, field.name), getattr(matrix, field.name))
        assert back.logp.dtype == np.float64
        assert estimate_mi(back).failures == estimate_mi(matrix).failures


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    for text in ("", "[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 1, "logp": [["x"]]}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="holds no score matrix"):
            load_matrix(path)
    with pytest.raises(ConfigError, match="holds no score matrix"):
        load_matrix(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    matrix = Codelength().score_matrix(["a"], "q", [["a"]])
    with pytest.raises(RunError, match="can't write"):
        save_matrix(tmp_path / "file" / "m.json", matrix)
