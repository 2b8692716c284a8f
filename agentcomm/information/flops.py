"""FLOPs of model calls, dense transformers: with and without reading the prompt.

    prefill    2·P·n_in + n_layer·d_attn·n_in²
    decode     2·P·n_out + 2·n_layer·d_attn·(n_in·n_out + n_out²/2)

P parameters, n_in and n_out tokens. "FLOPs per generation", which compression is often judged by, is
the decode alone; reading the prompt is most of the work where a long context is compressed, so both
stand side by side everywhere here. Tokens that a prefix cache already held are not read again.

A model's shape comes from its own files (a Hugging Face folder's ``config.json`` and weights, a GGUF
file) or from the user; of a model behind an API it is unknown, and so are its FLOPs. For a mixture of
experts P are the *active* parameters, which the files don't tell: say them.

(``../shared/spec/information.md``, section 5.)
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from agentcomm.errors import AgentCommError, ConfigError
from agentcomm.ledger.rows import NOT_RECORDED, CallRow


@dataclass(frozen=True)
class Shape:
    """What the FLOPs of a model depend on.

    Parameters
    ----------
    parameters:
        All of them; the active ones of a mixture of experts.
    layers, width:
        Transformer blocks, and the width of attention (heads × head size). 0 leaves attention out.
    """

    parameters: float
    layers: int = 0
    width: int = 0

    def __post_init__(self) -> None:
        if not (self.parameters > 0 and self.layers >= 0 and self.width >= 0):
            raise ConfigError(f"{self}: a model has parameters, and no negative layers or width")

    @classmethod
    def parse(cls, words: str) -> Shape:
        """``"1.5e9,28,1536"``: parameters, layers, width of attention.

        Raises
        ------
        ConfigError
            If it can't be read so.
        """
        try:
            first, *rest = words.split(",")
            layers, width = (int(word) for word in rest) if rest else (0, 0)
            return cls(float(first), layers, width)
        except ValueError:
            raise ConfigError(
                f"shape {words!r}: write PARAMETERS,LAYERS,WIDTH e.g. 1.5e9,28,1536, or PARAMETERS alone"
            ) from None

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"parameters": self.parameters, "layers": self.layers, "width": self.width}


class Flops(NamedTuple):
    """Floating-point operations: of reading the prompt, and of generating (the "FLOPs per generation")."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode

    def facts(self) -> dict[str, float]:
        """As JSON: both totals."""
        return {"generation": self.decode, "prefill": self.prefill, "total": self.total}


def flops_of(shape: Shape, n_in: float, n_out: float, n_cached: float = 0.0) -> Flops:
    """FLOPs of one call; ``n_cached`` of the ``n_in`` tokens came from a prefix cache.

    Examples
    --------
    A model of 7.6 billion parameters that says 100 tokens instead of one of 1.5 that says 460:

    >>> big, small = flops_of(Shape(7.62e9), 10_000, 100), flops_of(Shape(1.54e9), 10_000, 460)
    >>> round(big.decode / small.decode, 2), round(big.total / small.total, 1)
    (1.08, 4.8)
    """
    attention = shape.layers * shape.width
    prefill = 2 * shape.parameters * (n_in - n_cached) + attention * (n_in**2 - n_cached**2)
    decode = 2 * shape.parameters * n_out + 2 * attention * (n_in * n_out + n_out**2 / 2)
    return Flops(prefill, decode)


def flops_of_calls(rows: Iterable[CallRow], shapes: Mapping[str, Shape | None]) -> Flops | None:
    """FLOPs of calls, by each one's model string; ``None`` if any is unknown.

    Replies from a cache count as what they took when they were made. An attempt that failed counts
    where its tokens are known.
    """
    prefill = decode = 0.0
    for row in rows:
        if row.error_kind == NOT_RECORDED:
            continue
        if row.input_tokens is None or row.output_tokens is None:
            if row.error_kind is None:
                return None
            continue
        if (shape := shapes.get(row.model)) is None:
            return None
        one = flops_of(shape, row.input_tokens, row.output_tokens, row.cached_tokens or 0)
        prefill, decode = prefill + one.prefill, decode + one.decode
    return Flops(prefill, decode)


# -- shapes from files --------------------------------------------------------------------------


def shape_of(model: str) -> Shape | None:
    """The shape of a model string whose files are on this machine; ``None`` where they don't tell.

    ``local/smollm2``, ``local/FILE.gguf``, ``vllm/FOLDER``, ``hf/FOLDER``.
    """
    provider, _, name = model.partition("/")
    try:
        if provider == "local":
            return _of_gguf(_gguf_path(name))
        if provider in ("vllm", "hf") and Path(name, "config.json").is_file():
            return _of_folder(Path(name))
    except (AgentCommError, OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    return None


def _gguf_path(name: str) -> Path:
    if name == "smollm2":
        from agentcomm.backends.local import bundled_path

        return bundled_path()
    return Path(name)


def _of_folder(folder: Path) -> Shape | None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    if any("expert" in key and isinstance(v, int) and v > 1 for key, v in config.items()):
        return None  # the active parameters are the user's to say
    heads = int(config["num_attention_heads"])
    width = heads * int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    parameters = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            if not str(tensor["dtype"]).startswith(("F", "BF")) or tensor["dtype"].startswith("F8"):
                return None  # packed weights: an element is not a parameter
            parameters += math.prod(tensor["shape"])
    return Shape(parameters, int(config["num_hidden_layers"]), width) if parameters else None


_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def _of_gguf(path: Path) -> Shape | None:
    """From the header of a GGUF file (versions 2 and 3): its metadata and its tensors' shapes."""
    with path.open("rb") as file:
        magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF" or version < 2:
            return None
        known = dict(_pair(file) for _ in range(pairs))
        parameters = 0
        for _ in range(tensors):
            _text(file)
            dimensions = struct.unpack("<I", file.read(4))[0]
            parameters += math.prod(struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions)))
            file.read(12)  # type and offset
    kind = known["general.architecture"]
    if known.get(f"{kind}.expert_count"):
        return None
    heads, embedding = known[f"{kind}.attention.head_count"], known[f"{kind}.embedding_length"]
    width = heads * known.get(f"{kind}.attention.key_length", embedding // heads)
    return Shape(parameters, known[f"{kind}.block_count"], width)


def _pair(file: BinaryIO) -> tuple[str, Any]:
    return _text(file), _value(file, struct.unpack("<I", file.read(4))[0])


def _text(file: BinaryIO) -> str:
    return file.read(struct.unpack("<Q", file.read(8))[0]).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, length = struct.unpack("<IQ", file.read(12))
        if inner in _NUMBERS:
            file.seek(length * struct.calcsize("<" + _NUMBERS[inner]), 1)
        else:
            for _ in range(length):
                _value(file, inner)
        return None
    layout = "<" + _NUMBERS[kind]
    return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
