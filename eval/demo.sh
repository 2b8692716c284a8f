#!/usr/bin/env bash
# The README's demo: eval/results/demo.json, docs/demo.txt (what appeared) and docs/demo.svg.
# About three minutes on two cores. PYTHON names the environment's interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(dirname "${PYTHON:-.venv/bin/python}")
out=$(mktemp -d)/demo
"$bin/agentcomm" demo --out "$out" >docs/demo.txt
"$bin/agentcomm" demo --out "$out" --json >"$out/demo.json"  # all is done: this only prints
"${PYTHON:-.venv/bin/python}" - "$out" <<'END'
import json, subprocess, sys
from pathlib import Path

out = Path(sys.argv[1])
data = json.loads((out / "demo.json").read_text())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
for setting in data["settings"]:
    setting.pop("run"), setting.pop("wall_s")
items = json.loads((out / "complete" / "items.json").read_text())
result = {"command": "eval/demo.sh", "commit": commit, "model": "local/smollm2", "seed": 0, "item_hashes": items,
          "settings": data["settings"]}
Path("eval/results/demo.json").write_text(json.dumps(result, indent=1) + "\n")
shown = Path("docs/demo.txt")
text = "\n".join(line.rstrip() for line in shown.read_text().replace(str(out), "runs/demo").splitlines())
while "\n\n\n" in text:
    text = text.replace("\n\n\n", "\n\n")
shown.write_text(text.strip() + "\n")
END
cp "$out/picture.svg" docs/demo.svg
