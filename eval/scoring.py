"""Scoring with every context read once, against scoring each pair afresh: tokens, time, agreement.

    python eval/scoring.py --model FOLDER [--threads 1] [--out eval/results/scoring.json]

FOLDER is a Hugging Face folder (scripts/gguf_to_hf.py --smollm2 FOLDER makes one). N = 16 contexts of
1,000 tokens (made-up records), M = 2 messages of about 48 tokens each (facts of their own context),
each context with a question of its own, which costs most: tails are not shared.

*Afresh* is one forward pass for each pair, from nothing, with the output head on the message's
positions only: nothing is wasted but the repeated context. All N²·M of them take long, so one pair
drawn at random is scored after each column, on the machine as it then is; their mean time and tokens
times the number of pairs is what all would take. Cells that were scored both ways must agree.

Takes about 5 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

N, M, CONTEXT_TOKENS, MESSAGE_TOKENS = 16, 2, 1_000, 48
AGREE_NATS, FASTER, TOKENS = 1e-3, 10.0, 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=N, help="pairs scored afresh, at most one a column")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scoring.json")
    args = parser.parse_args()

    import torch

    from agentcomm.information import rows_of
    from agentcomm.information.scorers.hf import HFScorer

    torch.set_num_threads(args.threads)
    afresh: list[dict[str, Any]] = []
    rng = random.Random(0)

    def after_a_column(text: str) -> None:
        sys.stderr.write(text + "\n")
        if "context" not in text or "tokens" in text or len(afresh) >= args.pairs:
            return
        row, column = rng.randrange(N * M), rng.randrange(N)
        read = scorer.prefilled
        began = Clock.now()
        cell = scorer.afresh(contexts[column], rows[row].query, rows[row].text or "")
        spent = Clock.now() - began
        afresh.append(
            {"row": row, "column": column, "nats": cell.sum_logprob, "wall_s": spent.wall, "cpu_s": spent.cpu,
             "tokens": scorer.prefilled - read}
        )  # fmt: skip
        scorer.prefilled = read

    scorer = HFScorer(args.model, device=args.device, note=after_a_column)
    contexts, queries, messages = material(scorer)
    rows = rows_of(queries, messages)
    scorer.check()
    scorer.afresh(contexts[0], queries[0], messages[0][0])  # both ways have run once before the clock starts
    scorer.prefilled = 0

    began = Clock.now()
    matrix = scorer.score_matrix(contexts, queries, messages)
    spent = Clock.now() - began
    fast = Clock(spent.wall - sum(p["wall_s"] for p in afresh), spent.cpu - sum(p["cpu_s"] for p in afresh))

    tz = [len(scorer.spans.text(row.text or "")) for row in rows]
    tx = [len(scorer.spans.text(context)) for context in contexts]
    heads = [len(scorer.spans.head(context)) for context in contexts]
    tails = [len(scorer.spans.tail(query)) for query in queries]
    pairs = N * N * M
    mean = {key: sum(p[key] for p in afresh) / len(afresh) for key in ("wall_s", "cpu_s", "tokens")}
    differences = [abs(p["nats"] - float(matrix.logp[p["row"], p["column"]])) for p in afresh]
    formula = sum(tx) + N * sum(tz)
    with_prompt = sum(heads) + N * sum(tz)
    one_question = scorer.cost(contexts, rows_of(queries[0], messages), matrix.logp == matrix.logp)
    result = {
        "what": "scoring N²·M pairs with every context read once, against each pair afresh",
        "machine": {"processor": platform.processor() or platform.machine(), "threads": args.threads,
                    "device": args.device, "torch": torch.__version__, "load": load()},
        "model": scorer.id,
        "N": N, "M": M, "pairs": pairs,
        "mean_tokens": {"context": sum(tx) / N, "prompt_around_it": sum(heads) / N - sum(tx) / N,
                        "question": sum(tails) / N, "message": sum(tz) / len(tz)},
        "tokens": {
            "read": scorer.prefilled,
            "bound_of_the_issue": TOKENS * formula,
            "over_N_Tx_plus_N2_M_Tz": scorer.prefilled / formula,
            "the_same_with_the_prompt_in_Tx": scorer.prefilled / with_prompt,
            "over_the_formula_with_questions": scorer.prefilled / (with_prompt + N * sum(tails)),
            "afresh_extrapolated": mean["tokens"] * pairs,
            "times_fewer": mean["tokens"] * pairs / scorer.prefilled,
            "with_one_question_for_all": None if one_question is None else one_question.reuse,
        },
        "time": {
            "read_once": {"wall_s": fast.wall, "cpu_s": fast.cpu},
            "afresh_sampled_pairs": len(afresh),
            "afresh_a_pair": {"wall_s": mean["wall_s"], "cpu_s": mean["cpu_s"]},
            "afresh_extrapolated": {"wall_s": mean["wall_s"] * pairs, "cpu_s": mean["cpu_s"] * pairs},
            "times_faster_wall": mean["wall_s"] * pairs / fast.wall,
            "times_faster_cpu": mean["cpu_s"] * pairs / fast.cpu,
            "interval_of_times_faster_cpu": ratio_interval([p["cpu_s"] * pairs / fast.cpu for p in afresh]),
        },
        "agreement": {"cells": len(afresh), "largest_difference_nats": max(differences)},
    }  # fmt: skip
    result["targets"] = {
        "tokens at most 1.1 x (N*Tx + N^2*M*Tz)": result["tokens"]["read"]
        <= result["tokens"]["bound_of_the_issue"],  # type: ignore[index]
        "at least 10 times faster (CPU time)": result["time"]["times_faster_cpu"] >= FASTER,  # type: ignore[index]
        "cells agree to 1e-3 nats": max(differences) <= AGREE_NATS,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    return 0 if all(result["targets"].values()) else 1  # type: ignore[attr-defined]


class Clock:
    """Wall and CPU seconds; CPU time is what a busy machine doesn't change."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = wall, cpu

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Clock) -> Clock:
        return Clock(self.wall - other.wall, self.cpu - other.cpu)


def material(scorer: Any) -> tuple[list[str], list[str], list[list[str]]]:
    """Contexts cut at a fact to at most CONTEXT_TOKENS, a question about each, and facts of it as messages."""
    from agentcomm.information.measuring import text_of
    from agentcomm.loading import load_task

    items = load_task("records", {"limit": 12 * N}).items
    contexts, queries, messages = [], [], []
    rng = random.Random(1)
    for i in range(N):
        facts = [line for item in items[12 * i : 12 * i + 12] for line in text_of(item).split("\n") if line]
        while len(scorer.spans.text("\n".join(facts))) > CONTEXT_TOKENS:
            facts.pop()
        contexts.append("\n".join(facts))
        queries.append(items[12 * i].question)
        made = []
        for _ in range(M):
            chosen: list[str] = []
            for fact in rng.sample(facts, len(facts)):
                if len(scorer.spans.text(" ".join([*chosen, fact]))) > MESSAGE_TOKENS:
                    break
                chosen.append(fact)
            made.append(" ".join(chosen))
        messages.append(made)
    return contexts, queries, messages


def ratio_interval(values: list[float]) -> list[float]:
    """95 % Student's t over the sampled pairs."""
    import numpy as np

    from agentcomm.information.intervals import cluster_t

    found = cluster_t(np.array(values), 0.95)
    return [] if found is None else list(found)


def load() -> float | None:
    import os

    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    sys.exit(main())
