#!/usr/bin/env bash
# Agents that learn to talk in fewer tokens, with a real model: eval/results/dialogue.json.
#
#     eval/dialogue.sh MODEL-FOLDER SETTING [eval/dialogue.py's options]
#
# SETTING: one_hop (generated; what SmolLM2-135M can do), two_hop (about 40 minutes a seed on two cores with
# ENGINE=vllm), arithmetic, hotpotqa (with --data FOLDER). --minutes M stops between pieces; the same command continues. With ENGINE=vllm dialogues are
# played by vLLM (AGENTCOMM_VLLM_PYTHON names its interpreter), else in this process. one_hop with --iterations 1
# and --arms random takes about 40 minutes on two cores.
set -euo pipefail
model=$1 setting=$2
shift 2
python=${PYTHON:-.venv/bin/python}
if [ "${ENGINE:-hf}" = vllm ]; then
  # A server is started for each model, trained ones merged: LoRA is far slower in vLLM for the CPU.
  : "${AGENTCOMM_VLLM_PYTHON:?name the interpreter that vLLM is installed in}"
  export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-3} TORCHDYNAMO_DISABLE=1 KMP_BLOCKTIME=1
  export AGENTCOMM_VLLM_ARGS="--enforce-eager --max-model-len 4096 --seed 0 --block-size 32 --max-num-seqs 48
    --max-num-batched-tokens 65536 --enable-prompt-tokens-details --dtype bfloat16 ${VLLM_ARGS:-}"
  "$python" eval/dialogue.py "$setting" --model "vllm/$model" --merge "$@"
else
  "$python" eval/dialogue.py "$setting" --model "hf/$model" "$@"
fi
"$python" eval/dialogue.py --draw
