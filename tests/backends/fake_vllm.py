"""Stands in for an interpreter that has vLLM: starts as AGENTCOMM_VLLM_PYTHON, serves like vLLM.

``FAKE_VLLM`` says how: ``ok``, ``dies`` (at once), ``never`` (healthy), ``stubborn`` (ignores
SIGTERM), ``deaf`` (to adapters). It starts a child of its own, as vLLM does, and notes both process ids, its arguments
and what it finds in its environment in the file ``FAKE_VLLM_NOTES``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.servers import CountingServer

    if sys.argv[1] == "-c":
        return 0 if os.environ.get("FAKE_VLLM_DIST") == "vllm" else 1
    mode = os.environ.get("FAKE_VLLM", "ok")
    print("loading weights", flush=True)
    if mode == "dies":
        print("ValueError: no config.json in the folder", file=sys.stderr, flush=True)
        return 3
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note = {"pids": [os.getpid(), worker.pid], "argv": sys.argv[1:], "env": dict(os.environ)}
    with Path(os.environ["FAKE_VLLM_NOTES"]).open("a") as notes:
        notes.write(json.dumps(note) + "\n")
    if mode == "never":
        time.sleep(600)
    adapters = {}
    if "--lora-modules" in sys.argv:
        name, _, path = sys.argv[sys.argv.index("--lora-modules") + 1].partition("=")
        adapters[name] = path
    server = CountingServer(
        model=sys.argv[sys.argv.index("--served-model-name") + 1],
        tokenize="vllm",
        adapters=adapters,
        loaded=mode != "deaf",
    )
    server.port = int(sys.argv[sys.argv.index("--port") + 1])
    time.sleep(0.3)
    with server:
        time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
