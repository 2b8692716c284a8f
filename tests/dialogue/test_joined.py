"""Adapters of several iterations as one: the same model, in a folder of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from agentcomm.backends.adapters import ModelRef, check_adapters
from agentcomm.dialogue.joined import CONFIG, WEIGHTS, join
from agentcomm.errors import ConfigError, RunError

NAME = "base_model.model.layers.0.q_proj"


def adapter(folder: Path, rank: int, alpha: int, seed: int, **config: object) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    a = rng.normal(size=(rank, 6)).astype(np.float32)
    b = rng.normal(size=(5, rank)).astype(np.float32)
    save_file({f"{NAME}.lora_A.weight": a, f"{NAME}.lora_B.weight": b}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"r": rank, "lora_alpha": alpha, **config}))
    return folder


def base(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder


def change(folder: Path) -> np.ndarray:
    weights, config = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())
    a, b = weights[f"{NAME}.lora_A.weight"], weights[f"{NAME}.lora_B.weight"]
    return config["lora_alpha"] / config["r"] * (b @ a)


def test_what_they_change_is_the_sum_of_what_each_changes(tmp_path: Path) -> None:
    one, two = adapter(tmp_path / "1", 2, 4, 0), adapter(tmp_path / "2", 3, 3, 1)
    root = base(tmp_path / "base")
    made = join(ModelRef(str(root), (str(one), str(two))), tmp_path / "out")
    assert made == ModelRef(str(root), (str(tmp_path / "out"),))
    assert json.loads((tmp_path / "out" / CONFIG).read_text())["r"] == 5
    np.testing.assert_allclose(change(tmp_path / "out"), change(one) + change(two), rtol=1e-5)
    check_adapters(made)  # it is an adapter of the bare base model
    other = base(tmp_path / "other")
    save_file({"w": np.ones(3, np.float32)}, other / "model.safetensors")
    with pytest.raises(ConfigError, match="another base model"):
        check_adapters(ModelRef(str(other), made.adapters))


def test_joining_again_replaces_the_folder_as_a_whole(tmp_path: Path) -> None:
    root, one = base(tmp_path / "base"), adapter(tmp_path / "1", 2, 4, 0)
    out = tmp_path / "out"
    out.mkdir()
    (out / "left.over").write_text("x")
    join(ModelRef(str(root), (str(one),)), out)
    assert sorted(p.name for p in out.iterdir()) == sorted([CONFIG, WEIGHTS, "agentcomm.json"])


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    root = str(base(tmp_path / "base"))
    fancy = adapter(tmp_path / "f", 2, 4, 0, use_rslora=True)
    for adapters, says in (((), "no adapters"), ((str(fancy),), "plain LoRA"), (("nowhere",), "can be read")):
        with pytest.raises(ConfigError, match=says):
            join(ModelRef(root, adapters), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    one = adapter(tmp_path / "1", 2, 4, 0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="make space"):
        join(ModelRef(str(base(tmp_path / "base")), (str(one),)), tmp_path / "file" / "out")
