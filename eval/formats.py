"""Which message format works for a small real model on HotpotQA, found without training: tokens and F1.

    python eval/formats.py --model vllm/FOLDER --data FOLDER [--base-url URL]

Two agents hold one supporting paragraph each (``deal=2``, ``distractors=0``) and talk until they agree,
four messages at most. Eight formats, natural language among them, play the same learn items; the best
one meets natural language on validate items that nothing was chosen on. Writes
eval/results/formats.json; the same command continues after an interruption (dialogues lie in --runs).

The defaults are for two cores and a model of 0.5 B: at most 256 dialogues of about 850 tokens that are
not cached (640 read, 200 written), 220,000 in all; at 165 tokens a second 22 minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from benchmarks import commit, fingerprint, say

from agentcomm.dialogue.formats import NATURAL, pool
from agentcomm.dialogue.play import Team
from agentcomm.dialogue.reward import Dialogue, RewardConfig, reward
from agentcomm.dialogue.search import FormatSearch, SearchPlan
from agentcomm.evaluation.held import held
from agentcomm.evaluation.rundir import plain
from agentcomm.evaluation.stats import mean_interval, paired_bootstrap
from agentcomm.loading import load_graph, load_task
from agentcomm.options import RunOptions

HERE = Path(__file__).parent
FORMATS = "natural_terse,telegraphic,json,key_value,abbreviations,verbatim,question_answer_ids"
MARGIN = 0.05


def ratio(ours: Sequence[float], theirs: Sequence[float], draws: int = 10_000) -> dict[str, float]:
    """Sum of one over sum of the other, with a 95 % bootstrap interval over items."""
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    pick = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    low, high = np.quantile(x[pick].sum(axis=1) / y[pick].sum(axis=1), [0.025, 0.975])
    return {"ratio": float(x.sum() / y.sum()), "low": float(low), "high": float(high)}


def side(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """Mean F1 with its interval, and mean tokens by what is counted."""
    tokens = {
        kind: float(np.mean([d.tokens[kind] for d in dialogues]))
        for kind in ("message", "total")
        if all(kind in d.tokens for d in dialogues)
    }
    return {
        "f1": plain(vars(mean_interval([d.task for d in dialogues]))),
        "tokens": tokens,
        "messages": float(np.mean([len(d.messages) for d in dialogues])),
        "capped": sum(d.capped for d in dialogues),
    }


async def study(a: argparse.Namespace) -> dict[str, Any]:
    options = RunOptions(
        seed=a.seed,
        max_tokens=a.max_tokens,
        base_url=a.base_url,
        max_concurrency=a.concurrency,
        timeout_s=1800.0,
        executor="plain",
    )
    plan = SearchPlan(a.calibrate, tuple(int(n) for n in a.rungs.split(",")), a.accept)
    config = RewardConfig(loss_weight=0.0, min_tokens=8)
    shown = {"deal": 2, "distractors": a.distractors, **({"data": a.data} if a.data else {})}
    learn = load_task("hotpotqa", {**shown, "split": "learn", "limit": plan.learn_items})
    validate = load_task("hotpotqa", {**shown, "split": "validate", "limit": plan.accept})
    settings = {"rounds": a.rounds, "max_tokens": a.max_tokens, "answer": a.answer}
    team = Team(
        lambda instruction: load_graph("information_exchange", {**settings, "instruction": instruction}),
        learn,
        learn.items,
        validate.items,
        a.model,
        a.runs,
        options,
        lambda name, progress: say(name)(progress),
    )
    search = FormatSearch(pool(a.formats.split(",")), plan, config, a.seed)
    began = time.monotonic()
    async with held(a.model, options):
        found = await search.run(team)
        # Read again from the ledgers: nothing is paid twice.
        paid = team.paid_tokens
        found = dataclasses.replace(found, spent=None if found.spent is None else paid)
        ours, theirs = [
            await team.play(search.formats[f], range(plan.accept), "accept") for f in (found.winner, NATURAL)
        ]
    pairs = [(x, y) for x, y in zip(ours, theirs, strict=True) if x is not None and y is not None]
    x, y = [p[0] for p in pairs], [p[1] for p in pairs]
    rng = np.random.default_rng(a.seed)
    difference = paired_bootstrap([d.task for d in x], [d.task for d in y], rng=rng)
    kinds = [k for k in ("message", "total") if all(k in d.tokens for d in (*x, *y))]
    return {
        "command": "python " + " ".join(["eval/formats.py", *sys.argv[1:]]),
        "commit": commit(),
        "model": Path(a.model).name,
        "weights_sha256": fingerprint(a.model),
        "seed": a.seed,
        "graph": {"name": "information_exchange", **settings},
        "task_config": dict(validate.config),
        "learn_hashes": [i.content_hash[:16] for i in learn.items],
        "item_hashes": [i.content_hash[:16] for i in validate.items],
        "plan": vars(plan),
        "reward": config.to_dict(),
        "adopted": found.adopted,
        "winner": found.winner,
        "verdict": found.verdict,
        "front": list(found.front),
        "margin": MARGIN,
        "items": len(pairs),
        "failed": plan.accept - len(pairs),
        found.winner: side(x),
        NATURAL: side(y),
        "f1_difference": plain(vars(difference)),
        "not_worse": difference.low is not None and difference.low > -MARGIN,
        "tokens_ratio": {k: ratio([d.tokens[k] for d in x], [d.tokens[k] for d in y]) for k in kinds},
        "reward_difference": plain(vars(found.reward)),
        "guards": {
            f: sorted({g for d in talks for g in reward(d, found.normaliser, config).guards})
            for f, talks in ((found.winner, x), (NATURAL, y))
        },
        "standings": [s.to_dict() for s in found.standings],
        "normaliser": found.normaliser,
        "dialogues": found.dialogues,
        "learn_tokens": paid,
        "break_even_items": found.break_even,
        "seconds": round(time.monotonic() - began, 1),
        "examples": {
            f: [[f"{m.agent}: {m.text}" for m in d.messages] for d in talks[:2]]
            for f, talks in ((found.winner, x), (NATURAL, y))
        },
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: the winner beside natural language, and who fell out where."""
    lines = ["| format | F1 | message tokens | all tokens |", "|---|---|---|---|"]
    for name in (NATURAL, result["winner"]):
        s = result[name]
        f1, tokens = s["f1"], s["tokens"]
        lines.append(
            f"| {name} | {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}] | {tokens.get('message', 0):.0f} | "
            f"{tokens.get('total', 0):.0f} |"
        )
    d = result["f1_difference"]
    low = "" if d["low"] is None else f" [{d['low']:+.3f}, {d['high']:+.3f}]"
    lines.append(f"\n{result['verdict']}. F1 {d['mean']:+.3f}{low} on {result['items']} items")
    for kind, r in result["tokens_ratio"].items():
        lines.append(f"{kind} tokens {r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data")
    p.add_argument("--base-url")
    p.add_argument("--runs", type=Path, default=Path("runs/formats"))
    p.add_argument("--out", type=Path, default=HERE / "results" / "formats.json")
    p.add_argument("--formats", default=FORMATS)
    p.add_argument("--calibrate", type=int, default=16)
    p.add_argument("--rungs", default="8,16")
    p.add_argument("--accept", type=int, default=48)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--max-tokens", type=int, default=64)
    p.add_argument(
        "--answer",
        default="asked",
        choices=("asked", "marked"),
        help="asked: who spoke last says the answer alone, in one more call (small models mark nothing)",
    )
    p.add_argument("--distractors", type=int, default=0)
    p.add_argument("--concurrency", type=int, default=32)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args(words)
    result = anyio.run(study, a)
    a.out.write_text(json.dumps(plain(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
