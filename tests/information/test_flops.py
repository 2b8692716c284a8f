"""FLOPs: both totals, by hand; shapes from files; unknown is not zero."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from agentcomm.errors import ConfigError
from agentcomm.information.flops import Flops, Shape, flops_of, flops_of_calls, shape_of
from agentcomm.ledger.rows import CallRow


def row(model: str = "m", n_in: int | None = 10, n_out: int | None = 2, **more: object) -> CallRow:
    return CallRow(
        "1", "q", 0, 1, "a", 1, "evaluate", model, "r", 0.0, input_tokens=n_in, output_tokens=n_out, **more
    )  # type: ignore[arg-type]


def test_generation_alone_hides_what_reading_costs() -> None:
    big, small = flops_of(Shape(7.62e9), 10_000, 100), flops_of(Shape(1.54e9), 10_000, 460)
    assert big.decode / small.decode == pytest.approx(1.08, abs=0.005)
    assert big.total / small.total == pytest.approx(4.8, abs=0.05)
    assert set(big.facts()) == {"generation", "prefill", "total"}


def test_it_is_the_formula_and_cached_tokens_are_not_read_again() -> None:
    shape = Shape(1000, layers=2, width=5)
    assert flops_of(shape, 10, 4) == Flops(2 * 1000 * 10 + 10 * 100, 2 * 1000 * 4 + 2 * 10 * (40 + 8))
    assert flops_of(shape, 10, 4, 10).prefill == 0
    # A prompt read in two parts costs what it costs in one.
    assert flops_of(shape, 6, 0).prefill + flops_of(shape, 10, 0, 6).prefill == flops_of(shape, 10, 0).prefill


def test_a_call_of_an_unknown_model_or_size_makes_the_sum_unknown() -> None:
    shapes = {"m": Shape(100), "n": None}
    assert flops_of_calls([row(), row(cached_tokens=4)], shapes) == Flops(200 * 16, 200 * 4)
    assert flops_of_calls([row(), row("n")], shapes) is None
    assert flops_of_calls([row("other")], shapes) is None
    assert flops_of_calls([row(n_out=None)], shapes) is None
    failed = row(n_in=None, n_out=None, error_kind="timeout")
    assert flops_of_calls([row(), failed], shapes) == Flops(2000, 400)


def test_a_folder_tells_its_models_shape(tmp_path: Path) -> None:
    config = {"num_attention_heads": 4, "hidden_size": 32, "num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = {
        "__metadata__": {},
        "a": {"dtype": "BF16", "shape": [10, 32]},
        "b": {"dtype": "F32", "shape": [7]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert shape_of(f"vllm/{tmp_path}") == Shape(327, 3, 32)
    assert shape_of(f"openai/{tmp_path}") is None
    header["b"]["dtype"] = "U8"  # packed weights
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert shape_of(f"vllm/{tmp_path}") is None
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_experts": 8}))
    assert shape_of(f"hf/{tmp_path}") is None, "active parameters are not in the files"


def test_a_gguf_file_tells_its_models_shape(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    numbers = {"llama.block_count": 3, "llama.embedding_length": 32, "llama.attention.head_count": 4}
    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text("tokenizer.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    pairs += text("scores") + struct.pack("<IIQ", 9, 6, 2) + struct.pack("<2f", 1, 2)
    for name, value in numbers.items():
        pairs += text(name) + struct.pack("<II", 4, value)
    tensors = (
        text("w") + struct.pack("<I2QIQ", 2, 10, 32, 0, 0) + text("v") + struct.pack("<IQIQ", 1, 7, 0, 0)
    )
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 2, 6) + pairs + tensors)
    assert shape_of(f"local/{path}") == Shape(327, 3, 32)
    path.write_bytes(path.read_bytes()[:60])
    assert shape_of(f"local/{path}") is None, "a damaged file tells nothing"
    assert shape_of("local/nowhere.gguf") is None


def test_shapes_in_words() -> None:
    assert Shape.parse("1.5e9,28,1536") == Shape(1.5e9, 28, 1536)
    assert Shape.parse("7e9") == Shape(7e9)
    for words in ("", "x", "1,2", "0", "-1,2,3"):
        with pytest.raises(ConfigError):
            Shape.parse(words)
