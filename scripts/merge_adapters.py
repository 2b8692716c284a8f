#!/usr/bin/env python3
"""Merge a model's adapters into its weights: a folder for servers without LoRA, or for a stack of adapters.

    python scripts/merge_adapters.py FOLDER+ADAPTER[+ADAPTER] OUT
    python scripts/merge_adapters.py FOLDER OUT --adapter ADAPTER     # with those it was trained on

OUT must not be there yet. Its agentcomm.json says by hash what was merged, so that an adapter trained
on top of it is still known to belong to it. Needs the extra train.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentcomm.backends.adapters import ModelRef, stacked
from agentcomm.errors import AgentCommError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="FOLDER[+ADAPTER...]")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--adapter", type=Path)
    options = parser.parse_args(arguments)
    try:
        from agentcomm.dialogue.training import save_merged

        ref = ModelRef.of(options.model.removeprefix("hf/").removeprefix("vllm/"))
        if options.adapter is not None:
            ref = stacked(ref, options.adapter)
        print(save_merged(ref, options.out).base)
    except AgentCommError as error:
        print(f"merge_adapters: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
