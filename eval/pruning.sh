#!/usr/bin/env bash
# Learned topologies with a real model on vLLM for the CPU: eval/results/pruning.json.
#
#     eval/pruning.sh MODEL-FOLDER DATA-FOLDER SETTING [eval/pruning.py's options]
#
# SETTING: records (SmolLM2-135M, about half an hour on two cores), gsm8k, humaneval (Qwen2.5-Coder-0.5B,
# hours). The same command continues after an interruption. AGENTCOMM_VLLM_PYTHON and PYTHON as in
# eval/benchmarks.sh.
set -euo pipefail
model=$1 data=$2 setting=$3
shift 3
python=${PYTHON:-.venv/bin/python}
port=${PORT:-8378}
source "$(dirname "$0")/serve.sh"
serve "$model" "$port"
"$python" eval/pruning.py "$setting" --model "vllm/$model" --data "$data" --base-url "http://127.0.0.1:$port/v1" "$@"
"$python" eval/pruning.py --draw
