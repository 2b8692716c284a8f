#!/usr/bin/env bash
# GSM8K, MMLU and HumanEval with a small real model on vLLM for the CPU: eval/results/benchmarks-*.json.
#
#     eval/benchmarks.sh MODEL-FOLDER DATA-FOLDER [TASK:ITEMS ...]
#
# Two cores and Qwen2.5-Coder-0.5B: about 40 minutes a task of 100 items. The same command continues
# after an interruption. AGENTCOMM_VLLM_PYTHON names vLLM's interpreter (scripts/vllm_env.sh makes it),
# PYTHON the one agentcomm is installed in.
set -euo pipefail
model=$1 data=$2
shift 2
[ $# -gt 0 ] || set -- gsm8k:100 mmlu:200 humaneval:100
python=${PYTHON:-.venv/bin/python}
vllm=${AGENTCOMM_VLLM_PYTHON:?name the interpreter that vLLM is installed in}
port=${PORT:-8377}
library=$(dirname "$vllm")/../lib/libiomp5.so
# A prompt that is read in chunks kills vLLM 0.32 on the CPU if its request has a seed ("CPU Generator
# does not use offset"), so a step takes every prompt whole: --max-num-batched-tokens.

LD_PRELOAD="$library" VLLM_CPU_KVCACHE_SPACE=4 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 TORCHDYNAMO_DISABLE=1 \
  setsid "$vllm" -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name "$model" \
  --host 127.0.0.1 --port "$port" --enforce-eager --max-model-len 4096 --seed 0 --block-size 32 \
  --max-num-seqs 48 --max-num-batched-tokens 65536 --enable-prompt-tokens-details >"${LOG:-/tmp/agentcomm-vllm.log}" 2>&1 &
server=$!
trap 'kill -TERM -- -$server 2>/dev/null; sleep 3; kill -KILL -- -$server 2>/dev/null || true' EXIT
until curl -sf "http://127.0.0.1:$port/health" >/dev/null; do
  kill -0 "$server" || { echo "vLLM did not start; see its log" >&2; exit 1; }
  sleep 2
done
for entry in "$@"; do
  "$python" eval/benchmarks.py "${entry%%:*}" --model "vllm/$model" --data "$data" --limit "${entry##*:}" \
    --base-url "http://127.0.0.1:$port/v1"
done
