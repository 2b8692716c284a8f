#!/usr/bin/env bash
# Agents that learn to talk in fewer tokens, with a real model: eval/results/dialogue.json.
#
#     eval/dialogue.sh MODEL-FOLDER SETTING [eval/dialogue.py's options]
#
# SETTING: one_hop (generated; what SmolLM2-135M can do), two_hop (about 40 minutes a seed on two cores with
# ENGINE=vllm), arithmetic, hotpotqa (with --data FOLDER). --minutes M stops between pieces; the same command continues. With ENGINE=vllm dialogues are
# played by vLLM with the adapters (AGENTCOMM_VLLM_PYTHON names its interpreter), else in this process.
set -euo pipefail
model=$1 setting=$2
shift 2
python=${PYTHON:-.venv/bin/python}
if [ "${ENGINE:-hf}" = vllm ]; then
  port=${PORT:-8379}
  export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
  export VLLM_ARGS="--enable-lora --max-lora-rank 64 --max-loras 2 ${VLLM_ARGS:-}"
  source "$(dirname "$0")/serve.sh"
  serve "$model" "$port"
  "$python" eval/dialogue.py "$setting" --model "vllm/$model" --base-url "http://127.0.0.1:$port/v1" "$@"
else
  "$python" eval/dialogue.py "$setting" --model "hf/$model" "$@"
fi
"$python" eval/dialogue.py --draw
