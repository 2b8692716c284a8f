"""The README's example runs as it stands there, on a model that answers at once."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_as_written(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    code = code.replace('"local/smollm2"', '"mock/echo"')
    body = textwrap.indent(code.replace("import agentcomm as ac\n", ""), "    ")
    program = f"import asyncio\nimport agentcomm as ac\nasync def main():\n{body}\n    assert episode.answer\n    assert set(episode.usage.by_edge()) == {{str(e.key) for e in graph.edges}}\n    assert len(pruned.edges) == 3\nasyncio.run(main())\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("flowchart LR")


def test_the_learning_example_runs_as_written(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1].replace('"local/smollm2"', '"mock/echo"')
    program = (
        "import agentcomm as ac\nfrom agentcomm.loading import load_graph, load_task\n"
        f"item = load_task('records', {{'limit': 1}}).items[0]\n{code}\n"
        "assert 'judge' in topology.masks[0].agents\n"
        "assert ac.pruning.load('policies/records', graph)(item) == topology\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_demo_shown_is_the_one_that_was_printed() -> None:
    assert (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8").strip() in README


def test_every_command_of_the_readme_exists() -> None:
    from agentcomm.cli import app

    known = {c.name for c in app.registered_commands}
    named = set(re.findall(r"^agentcomm (\w+)", README, re.MULTILINE))
    assert named
    assert named <= known


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert "://" in link or (ROOT / link).exists()
