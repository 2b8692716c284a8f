"""DialoguePolicy: what was learned, applied to a team, saved and loaded; weights go to all or to none."""

import json
from pathlib import Path

import pytest

from agentcomm.dialogue.policy import DialoguePolicy, load
from agentcomm.errors import ConfigError
from agentcomm.loading import load_graph

BOTH = ("alice", "bob")


def policy(folder: Path) -> DialoguePolicy:
    return DialoguePolicy(
        formats={"alice": "Write JSON."},
        demonstrations={"bob": ("d1", "d2")},
        texts={"d1": "It went so: a", "d2": "It went so: b"},
        models=dict.fromkeys(BOTH, f"hf//weights/base+{folder}/iter2"),
        trained=BOTH,
        learned_from=("aa", "bb"),
        spent=1200,
    )


def test_a_policy_comes_back_as_it_was_saved_and_its_folder_may_move(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    made = policy(folder)
    made.save(folder)
    assert load(folder) == made
    assert str(folder) not in (folder / "policy.json").read_text()
    folder.rename(tmp_path / "b")
    assert load(tmp_path / "b") == policy(tmp_path / "b")


def test_it_teaches_each_agent_how_to_write_what_to_imitate_and_which_weights_to_use(tmp_path: Path) -> None:
    graph = load_graph("information_exchange")
    taught = policy(tmp_path).apply(graph)
    alice, bob = taught.by_name["alice"], taught.by_name["bob"]
    assert alice.role == f"{graph.by_name['alice'].role} Write JSON."
    assert bob.role == f"{graph.by_name['bob'].role}\n\nIt went so: a\n\nIt went so: b"
    assert alice.model == bob.model == f"hf//weights/base+{tmp_path}/iter2"
    assert taught.by_name["agreement"] == graph.by_name["agreement"]
    assert DialoguePolicy().apply(graph) == graph
    # As the shipped settings place an instruction, so does a policy.
    told = load_graph("information_exchange", {"instruction": "Write JSON."})
    assert DialoguePolicy(formats=dict.fromkeys(BOTH, "Write JSON.")).apply(graph) == told


def test_weights_trained_on_all_agents_turns_are_not_applied_to_some_of_them(tmp_path: Path) -> None:
    graph = load_graph("information_exchange")
    with pytest.raises(ConfigError, match="without bob"):
        policy(tmp_path).apply(graph, ["alice"])
    with pytest.raises(ConfigError, match="no bob"):
        policy(tmp_path).apply(load_graph("single"))
    only = DialoguePolicy(formats={"alice": "Be brief.", "bob": "Be brief."})
    assert only.apply(graph, ["alice"]).by_name["bob"] == graph.by_name["bob"]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": 9}), json.dumps({"format": 1})])
def test_a_file_that_is_no_policy_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(ConfigError, match="policy"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no dialogue policy"):
        load(tmp_path / "nowhere")


def test_a_demonstration_without_its_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="d9"):
        DialoguePolicy(demonstrations={"alice": ("d9",)})
