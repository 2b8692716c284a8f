# serve MODEL PORT: vLLM for the CPU, until this script ends. Sourced by the scripts beside it.
# A prompt that is read in chunks kills vLLM 0.32 on the CPU if its request has a seed ("CPU Generator
# does not use offset"), so a step takes every prompt whole: --max-num-batched-tokens.

serve() {
  local model=$1 port=$2
  local vllm=${AGENTCOMM_VLLM_PYTHON:?name the interpreter that vLLM is installed in}
  LD_PRELOAD="$(dirname "$vllm")/../lib/libiomp5.so" VLLM_CPU_KVCACHE_SPACE=4 VLLM_CPU_NUM_OF_RESERVED_CPU=${RESERVED_CPU:-0} HF_HUB_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 TORCHDYNAMO_DISABLE=1 \
    setsid "$vllm" -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name "$model" \
    --host 127.0.0.1 --port "$port" --enforce-eager --max-model-len "${MAX_LENGTH:-4096}" --seed 0 --block-size 32 \
    --max-num-seqs 48 --max-num-batched-tokens 65536 --enable-prompt-tokens-details ${VLLM_ARGS:-} >"${LOG:-/tmp/agentcomm-vllm.log}" 2>&1 &
  server=$!
  trap 'kill -TERM -- -$server 2>/dev/null; sleep 3; kill -KILL -- -$server 2>/dev/null || true' EXIT
  until curl -sf "http://127.0.0.1:$port/health" >/dev/null; do
    kill -0 "$server" || { echo "vLLM did not start; see its log" >&2; exit 1; }
    sleep 2
  done
}
