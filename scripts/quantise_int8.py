"""An int8 copy of a Hugging Face folder, for measurements on a CPU: about 1.4 times the tokens a second.

    python scripts/quantise_int8.py FOLDER OUT

Weights of the linear layers are rounded to the nearest of 255 steps a row (symmetric), activations
at run time for each token; embeddings and the output head stay bfloat16. The format is
compressed-tensors' ``int-quantized``, which vLLM reads. Rounding changes a model a little: a result
from such a folder names it.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "channel",
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, out)
    tensors = {}
    for file in sorted(source.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            if not name.endswith("_proj.weight"):
                tensors[name] = weight.to(torch.bfloat16)
                continue
            step = weight.float().abs().amax(dim=1, keepdim=True) / 127
            tensors[name] = (weight.float() / step).round().clamp(-128, 127).to(torch.int8)
            tensors[name.replace(".weight", ".weight_scale")] = step.to(torch.bfloat16)
    if not tensors:
        raise SystemExit(f"no .safetensors in {source}; scripts/gguf_to_hf.py makes such a folder")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config |= {"torch_dtype": "bfloat16", "quantization_config": QUANTIZATION}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
