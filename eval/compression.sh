#!/usr/bin/env bash
# Real compressors and predictors on vLLM for the CPU: eval/results/compression.json and its pictures.
#
#     eval/compression.sh DATA-FOLDER SMALL MIDDLE LARGE SCORER [SCORER]
#
# Folders of models: three compressors of growing size (the largest also answers; the middle one also
# runs the teams whose edges are compressed), then one or two scorers of another family (transformers
# in this process). About 40 minutes on two quiet cores; every step continues where it was cut short, and
# STEPS="compress answer score edges write" names those to do; CONTEXTS=16 makes smaller score matrices,
# DTYPE=bfloat16 quicker ones. AGENTCOMM_VLLM_PYTHON and PYTHON as in eval/benchmarks.sh.
set -euo pipefail
[ $# -ge 5 ] || { sed -n 2,10p "$0" >&2; exit 2; }
data=$1 small=$2 middle=$3 large=$4
shift 4
python=${PYTHON:-.venv/bin/python}
port=${PORT:-8379}
steps=" ${STEPS:-compress answer score edges write} "
source "$(dirname "$0")/serve.sh"

wants() { [[ $steps == *" $1 "* ]]; }
stop() { trap - EXIT; kill -TERM -- -"$server" 2>/dev/null || true; sleep 5; kill -KILL -- -"$server" 2>/dev/null || true; }
step() { "$python" eval/compression.py "$@" --data "$data"; }
url=http://127.0.0.1:$port/v1

for model in "$small" "$middle" "$large"; do
  wants compress || { wants edges && [ "$model" = "$middle" ]; } || { wants answer && [ "$model" = "$large" ]; } || continue
  serve "$model" "$port"
  for task in squad records; do
    if wants compress; then step compress "$task" --model "vllm/$model" --base-url "$url"; fi
    if wants answer && [ "$model" = "$large" ]; then step answer "$task" --model "vllm/$model" --base-url "$url"; fi
  done
  if wants edges && [ "$model" = "$middle" ]; then step edges --model "vllm/$model" --base-url "$url"; fi
  stop
done
if wants score; then
  for task in squad records; do
    step score "$task" --scorer offline/codelength --contexts "${CONTEXTS:-32}"
    for scorer in "$@"; do step score "$task" --scorer "hf/$scorer" --contexts "${CONTEXTS:-32}" --dtype "${DTYPE:-float32}"; done
  done
fi
if wants write; then step write; "$python" eval/compression.py draw; fi
