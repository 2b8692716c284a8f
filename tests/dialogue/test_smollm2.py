"""SmolLM2-135M learns to talk in fewer words: minutes on two cores, so they run on request.

AGENTCOMM_SMOLLM2_FOLDER names its folder (scripts/gguf_to_hf.py --smollm2 FOLDER makes it).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from agentcomm.backends.adapters import ModelRef
from agentcomm.dialogue.export import TrainConfig
from agentcomm.dialogue.readability import open_readability
from agentcomm.dialogue.rows import Row, rows
from agentcomm.dialogue.tree import Said
from agentcomm.dialogue.workshop import TrlWorkshop
from agentcomm.evaluation.run import evaluate
from agentcomm.ledger.store import Ledger
from agentcomm.loading import load_graph
from agentcomm.options import RunOptions
from agentcomm.task import Item
from tests.command import agentcomm
from tests.dialogue.classroom import items

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|peft|transformers|trl|accelerate)"),
]


@pytest.fixture
def folder() -> str:
    found = os.environ.get("AGENTCOMM_SMOLLM2_FOLDER", "")
    if not found:
        pytest.skip("AGENTCOMM_SMOLLM2_FOLDER names no folder (scripts/gguf_to_hf.py --smollm2 FOLDER)")
    return found


def test_an_english_sentence_is_more_readable_than_its_letters_shuffled(folder: str) -> None:
    reader = open_readability(f"hf/{folder}")
    english, shuffled = reader.read(
        ["The person who lives in Oslo has a pet parrot.", "heT pserno hwo vlise in lsOo ash a epf trpaotr."]
    ).nlls
    reader.close()
    assert 0.5 < english < shuffled


def terse(item: Item) -> list[Row]:
    """What a good pair would say: the fact that the partner lacks, and the answer twice."""
    graph = load_graph("information_exchange", {"max_tokens": 48})
    facts = [line for share in ("s1", "s2") for line in item.views[share].splitlines()]
    who = next(
        n for n in {f.split()[0] for f in facts} if any(f[len(n) + 1 : -1] in item.question for f in facts if f.startswith(n + " "))
    )  # fmt: skip
    said = [f"It is {who}. <A>{item.answer}</A>", f"<A>{item.answer}</A>"]
    talk = [Said("alice", said[0]), Said("bob", said[1])]
    return rows(graph, item, talk, reward=1.0)


async def test_imitating_terse_dialogues_makes_held_out_ones_shorter(folder: str, tmp_path: Path) -> None:
    shop, base = TrlWorkshop(), ModelRef(folder)
    found = [row for item in items("learn", 60).items for row in terse(item)]
    config = TrainConfig(learning_rate=5e-4, batch_size=8, max_steps=12)
    trained = shop.train(found, base, config, tmp_path / "model")
    graph, held_out = load_graph("information_exchange", {"max_tokens": 48}), items("validate", 24)
    written = []
    for ref in (base, trained):
        options = RunOptions(executor="plain", max_concurrency=12)
        run = await evaluate(graph, held_out, shop.serve(ref), options=options)
        by_item = {e.item: 0 for e in run.episodes}
        for row in run.usage.rows:
            by_item[row.item] += row.output_tokens or 0
        written.append(np.array([by_item[i.id] for i in held_out.items], float))
    pick = np.random.default_rng(0).integers(24, size=(2_000, 24))
    ratios = written[1][pick].sum(axis=1) / written[0][pick].sum(axis=1)
    assert np.quantile(ratios, 0.975) < 1


def test_an_iteration_that_was_killed_goes_on_is_served_and_reported_with_what_it_cost(
    folder: str, tmp_path: Path
) -> None:
    out = tmp_path / "adapters"
    words = ["information_exchange", "records", "-T", "specialists=2", "-T", "by=attribute", "-T", "hops=2",
             "-G", "max_tokens=32", "-G", "rounds=2", "--model", f"hf/{folder}"]  # fmt: skip
    train = ["train", *words, "--iterations", "1", "--items", "8", "--validate", "6", "--samples", "2",
             "--max-steps", "2", "--min-tokens", "1", "--task-floor", "0", "--threshold", "-9", "--accept", "always",
             "--concurrency", "8", "--out", str(out), "--json"]  # fmt: skip
    command = [sys.executable, "-c", "from agentcomm.cli import main; main()", *train]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while not (ledger := out / "ledger.sqlite").exists() or len(_calls(ledger)) < 12:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    paid = {c.id: c.input_tokens for c in _calls(ledger) if c.error_kind is None}
    made = agentcomm(*train)
    assert made.code == 0, made.err
    result = made.json
    after = {c.id: c.input_tokens for c in _calls(ledger)}
    assert paid.items() <= after.items()
    (one,) = result["iterations"]
    assert one["training"]["steps"] == 2 and one["model_out"] == "iter1"
    assert result["spent"] == sum(one["spent"].values()) > 0 and "break_even_items" in one["accept"]
    ended = agentcomm("eval", *words, "--limit", "3", "--adapter", str(out / "iter1"), "--json",
                      "--out", str(tmp_path / "run"))  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["scored"] == 3


def _calls(path: Path) -> list:  # type: ignore[type-arg]
    with Ledger.open(path, read_only=True) as ledger:
        return ledger.calls(texts=False)
