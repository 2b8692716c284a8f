#!/usr/bin/env bash
# Message formats without training, a small real model on vLLM for the CPU: eval/results/formats.json.
#
#     eval/formats.sh MODEL-FOLDER DATA-FOLDER [eval/formats.py's options]
#
# Two cores and a model of 0.5 B: about 25 minutes. The same command continues after an interruption.
# AGENTCOMM_VLLM_PYTHON and PYTHON as in eval/benchmarks.sh.
set -euo pipefail
model=$1 data=$2
shift 2
python=${PYTHON:-.venv/bin/python}
port=${PORT:-8379}
source "$(dirname "$0")/serve.sh"
serve "$model" "$port"
"$python" eval/formats.py --model "vllm/$model" --data "$data" --base-url "http://127.0.0.1:$port/v1" "$@"
