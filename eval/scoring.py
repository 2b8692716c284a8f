"""Scoring with every context read once, against scoring each pair afresh: tokens, time, agreement.

    python eval/scoring.py --model FOLDER [--threads 1] [--out eval/results/scoring.json]

FOLDER is a Hugging Face folder (scripts/gguf_to_hf.py --smollm2 FOLDER makes one). N = 16 contexts of
1,000 tokens (made-up records), M = 2 messages of at most 32 tokens each (facts of their own context),
one question for all. With --own-questions each context has its own, and every tail is read under every
context. Longer messages gain less: a token of a message takes more time than one of a context, since it
sees the whole context and goes through the output head.

*Afresh* is one forward pass for each pair, from nothing, with the output head on the message's
positions only: nothing is wasted but the repeated context. All N²·M of them take long, so one pair
drawn at random is scored after each column, on the machine as it then is; their mean time and tokens
times the number of pairs is what all would take. Cells that were scored both ways must agree.

The file is written after every column and says how many were measured; the same command continues.
All of it takes about 6 minutes on one core that is free.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

N, M, CONTEXT_TOKENS = 16, 2, 1_000
AGREE_NATS, FASTER, TOKENS = 1e-3, 10.0, 1.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--message-tokens", type=int, default=32)
    parser.add_argument("--own-questions", action="store_true")
    parser.add_argument("--probe", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scoring.json")
    args = parser.parse_args()

    import torch

    from agentcomm.information import rows_of
    from agentcomm.information.scorers import Ask
    from agentcomm.information.scorers.hf import HFScorer

    torch.set_num_threads(args.threads)
    scorer = HFScorer(args.model, device=args.device, probing=args.probe)
    scorer.check()
    contexts, queries, messages = material(scorer, args.message_tokens, args.own_questions)
    rows = rows_of(queries, messages)
    asks = [Ask(row.query, row.text or "") for row in rows]
    setting = {
        "model": scorer.id,
        "prompt": scorer.prompt_id,
        "threads": args.threads,
        "device": args.device,
        "message_tokens_at_most": args.message_tokens,
        "questions": "each context's own" if args.own_questions else "one for all",
    }
    columns = resumed(args.out, setting)
    scorer.afresh(NO_CONTEXT, queries[0], messages[0][0])  # has run once before the clock starts
    for number in range(len(columns), N):
        columns.append(measure(scorer, contexts, asks, number))
        result = {"what": __doc__.splitlines()[0], "setting": setting, "machine": machine(torch)}
        result |= summary(scorer, contexts, queries, rows, columns) | {"columns": columns}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        sys.stderr.write(f"column {number + 1} of {N}: {columns[-1]}\n")
    found = json.loads(args.out.read_text(encoding="utf-8"))
    print(json.dumps({key: value for key, value in found.items() if key != "columns"}, indent=2))
    return 0 if all(found["targets"].values()) else 1


NO_CONTEXT = "Nobody lives anywhere."


def resumed(path: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns that an earlier run of the same measured."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(found["columns"]) if found.get("setting") == setting else []


def measure(scorer: Any, contexts: list[str], asks: list[Any], column: int) -> dict[str, Any]:
    """One column read once, and one pair of any column afresh."""
    rng = random.Random(f"pair/{column}")
    read, began = scorer.prefilled, Clock.now()
    cells = dict(cell for batch in scorer.column(contexts[column], asks, ()) for cell in batch)
    fast, fast_tokens = Clock.now() - began, scorer.prefilled - read
    row = rng.randrange(len(asks))
    read, began = scorer.prefilled, Clock.now()
    cell = scorer.afresh(contexts[column], *asks[row])
    slow, slow_tokens = Clock.now() - began, scorer.prefilled - read
    return {
        "read_once": {"wall_s": fast.wall, "cpu_s": fast.cpu, "tokens": fast_tokens},
        "one_pair_afresh": {"row": row, "wall_s": slow.wall, "cpu_s": slow.cpu, "tokens": slow_tokens},
        "difference_nats": abs(cell.sum_logprob - cells[row].sum_logprob),
    }


def summary(
    scorer: Any, contexts: list[str], queries: list[str], rows: list[Any], columns: list[dict[str, Any]]
) -> dict[str, Any]:
    tz = [len(scorer.spans.text(row.text or "")) for row in rows]
    tx = [len(scorer.spans.text(context)) for context in contexts]
    heads = [len(scorer.spans.head(context)) for context in contexts]
    tails = [len(scorer.spans.tail(query)) for query in queries]
    by_question = [len(scorer.spans.tail(query)) for query in dict.fromkeys(queries)]
    k, pairs = len(columns), N * N * M

    def mean(way: str, what: str) -> float:
        return float(sum(column[way][what] for column in columns) / k)

    # Columns differ in their context's length alone, by at most five tokens.
    once = {what: N * mean("read_once", what) for what in ("wall_s", "cpu_s", "tokens")}
    afresh = {what: pairs * mean("one_pair_afresh", what) for what in ("wall_s", "cpu_s", "tokens")}
    faster = [
        pairs * column["one_pair_afresh"]["cpu_s"] / (N * column["read_once"]["cpu_s"]) for column in columns
    ]
    formula, with_prompt = sum(tx) + N * sum(tz), sum(heads) + N * sum(tz)
    worst = max(column["difference_nats"] for column in columns)
    tokens = once["tokens"] / formula
    return {
        "N": N,
        "M": M,
        "pairs": pairs,
        "columns_measured": k,
        "pairs_measured_afresh": k,
        "mean_tokens": {
            "context": sum(tx) / N,
            "prompt_around_it": (sum(heads) - sum(tx)) / N,
            "question": sum(tails) / N,
            "message": sum(tz) / len(tz),
        },
        "read_once": once,
        "afresh_extrapolated_from_the_pairs": afresh,
        "tokens": {
            "over_N_Tx_plus_N2_M_Tz": tokens,
            "the_same_with_the_prompt_in_Tx": once["tokens"] / with_prompt,
            "over_the_formula_with_questions": once["tokens"] / (with_prompt + N * sum(by_question)),
            "times_fewer_than_afresh": afresh["tokens"] / once["tokens"],
        },
        "times_faster": {
            "cpu": afresh["cpu_s"] / once["cpu_s"],
            "cpu_interval_95": ratio_interval(faster),
            "wall_on_a_shared_machine": afresh["wall_s"] / once["wall_s"],
        },
        "largest_difference_nats": worst,
        "targets": {
            "tokens at most 1.1 x (N*Tx + N^2*M*Tz)": tokens <= TOKENS,
            "at least 10 times faster (CPU time)": afresh["cpu_s"] / once["cpu_s"] >= FASTER,
            "cells agree to 1e-3 nats": worst <= AGREE_NATS,
            "all columns measured": k == N,
        },
    }


class Clock:
    """Wall and CPU seconds; CPU time is what a busy machine doesn't change."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = wall, cpu

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: Clock) -> Clock:
        return Clock(self.wall - other.wall, self.cpu - other.cpu)


def material(
    scorer: Any, message_tokens: int, own_questions: bool
) -> tuple[list[str], list[str], list[list[str]]]:
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
        queries.append(items[12 * i if own_questions else 0].question)
        made = []
        for _ in range(M):
            chosen: list[str] = []
            for fact in rng.sample(facts, len(facts)):
                if len(scorer.spans.text(" ".join([*chosen, fact]))) > message_tokens:
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


def machine(torch: Any) -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    sys.exit(main())
