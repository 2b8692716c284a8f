#!/usr/bin/env bash
# GSM8K, MMLU and HumanEval with a small real model on vLLM for the CPU: eval/results/benchmarks-*.json.
#
#     eval/benchmarks.sh MODEL-FOLDER DATA-FOLDER [TASK:ITEMS ...]
#
# Two cores and Qwen2.5-Coder-0.5B: half an hour to an hour a task. The same command continues
# after an interruption. AGENTCOMM_VLLM_PYTHON names vLLM's interpreter (scripts/vllm_env.sh makes it),
# PYTHON the one agentcomm is installed in.
set -euo pipefail
model=$1 data=$2
shift 2
[ $# -gt 0 ] || set -- gsm8k:100 mmlu:200 humaneval:100
python=${PYTHON:-.venv/bin/python}
port=${PORT:-8377}
source "$(dirname "$0")/serve.sh"
serve "$model" "$port"
for entry in "$@"; do
  "$python" eval/benchmarks.py "${entry%%:*}" --model "vllm/$model" --data "$data" --limit "${entry##*:}" \
    --base-url "http://127.0.0.1:$port/v1"
done
