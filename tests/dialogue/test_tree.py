"""A tree of dialogues: its statistics, its choices and its pairs, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentcomm.dialogue.select import select_pairs
from agentcomm.dialogue.tree import ROOT, DialogueTree, Said
from agentcomm.errors import ConfigError


def said(*texts: str) -> list[Said]:
    return [Said(("alice", "bob")[i % 2], t) for i, t in enumerate(texts)]


def from_bob(*texts: str) -> list[Said]:
    return [Said(("bob", "alice")[i % 2], t) for i, t in enumerate(texts)]


A, B, C = "the first way to begin", "something else entirely", "0123456789 no words"


def worked() -> tuple[DialogueTree, list[int]]:
    """The specification's example: three dialogues through the root's children, three more through the first."""
    tree = DialogueTree("i")
    tree.root.expanded = True
    for text, end, r in ((A, "aa", 1.2), (B, "bb", 0.6), (C, "cc", 0.9)):
        tree.add(ROOT, said(text, end + " middle", end + " end"), r)
    a, b, c = tree.root.children
    for end, r in (("xylophone", 1.5), ("quartz vow", 0.3), ("jumping fox", 0.6)):
        tree.add(a, from_bob(end, end + " closes"), r)
    return tree, [a, b, c]


def test_the_worked_example_backs_up_rewards() -> None:
    tree, (a, b, c) = worked()
    assert (tree.root.visits, tree.nodes[a].visits) == (6, 4)
    assert tree.root.value == pytest.approx(0.85) and tree.nodes[a].value == pytest.approx(0.9)
    assert [tree.nodes[n].value for n in (b, c)] == pytest.approx([0.6, 0.9])


def test_the_worked_example_gives_its_pairs_and_keeps_the_better_half() -> None:
    tree, (a, _, _) = worked()
    (kept,), funnel = select_pairs(tree)
    assert (funnel.passed, funnel.kept) == (2, 1)
    assert kept.parent == a and kept.history == tuple(said(A))
    assert (kept.chosen.text, kept.rejected.text) == ("xylophone", "quartz vow")
    both, _ = select_pairs(tree, share=100)
    assert [(p.chosen.text, p.rejected.text) for p in both] == [("xylophone", "quartz vow"), (A, B)]
    assert both[1].history == () and both[1].value == pytest.approx(0.9)  # the tie of a and c goes to a


def test_thresholds_are_strict_and_random_keeps_the_same_count() -> None:
    tree, _ = worked()
    assert select_pairs(tree, least=1.5)[0] == []
    assert len(select_pairs(tree, gap=0.3 + 1e-9, share=100)[0]) == 1
    for seed in range(5):
        kept, _ = select_pairs(tree, selector="random", rng=np.random.default_rng(seed))
        assert len(kept) == 1
    assert select_pairs(DialogueTree(), selector="random", rng=np.random.default_rng(0))[0] == []
    with pytest.raises(ConfigError, match="needs rng"):
        select_pairs(tree, selector="random")
    with pytest.raises(ConfigError, match="q, gap, random"):
        select_pairs(tree, selector="best")  # type: ignore[arg-type]


def test_equal_values_make_no_pair() -> None:
    tree = DialogueTree()
    for text in (A, B, C):
        tree.add(ROOT, said(text), 1.0)
    assert select_pairs(tree)[0] == []


@pytest.mark.parametrize(
    ("first", "second", "nodes"),
    [
        ("a" * 100, "a" * 95 + "b" * 5, 1),  # 0.05: the same
        ("a" * 100, "a" * 90 + "b" * 10, 2),  # 0.1 exactly: not
        ("long words before it <A>12</A>", "long words before it <A>13</A>", 2),  # another answer
        ("same", "same", 1),
    ],
)
def test_messages_merge_below_the_bound_and_never_with_another_answer(
    first: str, second: str, nodes: int
) -> None:
    tree = DialogueTree()
    tree.add(ROOT, said(first), 1.0)
    tree.add(ROOT, said(second), 0.0)
    assert len(tree.root.children) == nodes and tree.root.visits == 2


def test_a_message_that_ends_the_dialogue_is_no_message_that_goes_on() -> None:
    tree = DialogueTree()
    tree.add(ROOT, said("same"), 1.0)
    tree.add(ROOT, said("same", "and more"), 0.0)
    assert len(tree.root.children) == 2


def test_a_message_merges_into_the_nearest_sibling() -> None:
    tree = DialogueTree(merge=0.2)
    tree.add(ROOT, said("a" * 80 + "b" * 20), 0.0)
    tree.add(ROOT, said("a" * 80 + "c" * 20), 0.0)
    end = tree.add(ROOT, said("a" * 80 + "c" * 15 + "b" * 5), 1.0)
    assert end == tree.root.children[1]


def test_the_root_is_expanded_first_and_once_then_nodes_with_grandchildren_that_say_something_new() -> None:
    rng = np.random.default_rng(0)
    tree = DialogueTree()
    assert tree.choose(rng) == ROOT
    tree.add(ROOT, said(A, "next", "last"), 1.0)
    tree.add(ROOT, said(A + "!" * 30, "only one reply"), 1.0)
    assert tree.candidates() == [tree.root.children[0]]  # the other has no grandchild
    assert tree.choose(rng) == tree.root.children[0]
    assert tree.choose(rng) is None and tree.exhausted


@pytest.mark.parametrize(("changed", "kept"), [(25, True), (24, False)])
def test_a_quarter_of_the_characters_makes_a_message_new(changed: int, kept: bool) -> None:
    tree = DialogueTree(merge=0.0)
    tree.choose(np.random.default_rng(0))
    for text in ("a" * 100, "a" * (100 - changed) + "b" * changed):
        tree.add(ROOT, said(text, "x", "y"), 1.0)
    first, second = tree.root.children
    tree.nodes[first].expanded = True
    assert (second in tree.candidates()) == kept


def test_only_the_best_values_are_drawn_from() -> None:
    tree = DialogueTree(best=1)
    tree.choose(np.random.default_rng(0))
    for text, r in ((A, 0.1), (B, 5.0), (C, 0.2)):
        tree.add(ROOT, said(text, "x", "y"), r)
    assert tree.choose(np.random.default_rng(1)) == tree.root.children[1]


def grow(seed: int) -> DialogueTree:
    """Eight expansions of three dialogues of four mutually distant messages."""
    rng = np.random.default_rng([seed, 1])
    tree = DialogueTree("grown")
    for _ in range(8):
        start = tree.choose(rng)
        assert start is not None
        depth = len(tree.path(start))
        for _ in range(3):
            texts = ["".join(map(chr, rng.integers(97, 123, 40))) for _ in range(4 - min(depth, 3))]
            who = [("alice", "bob")[(depth + i) % 2] for i in range(len(texts))]
            tree.add(start, [Said(*x) for x in zip(who, texts, strict=True)], float(rng.uniform(0, 2)))
    return tree


@pytest.mark.parametrize("seed", range(5))
def test_a_grown_tree_adds_up(seed: int) -> None:
    tree = grow(seed)
    assert tree.root.visits == 24 and sum(n.endings for n in tree.nodes) == 24
    for node in tree.nodes:
        children = [tree.nodes[i] for i in node.children]
        assert node.visits == node.endings + sum(c.visits for c in children)
        if children:
            ended = node.total - sum(c.total for c in children)
            assert node.endings or ended == pytest.approx(0.0)
    assert sum(n.expanded for n in tree.nodes) == 8  # none twice


def test_the_same_seed_grows_the_same_tree_and_a_file_brings_it_back() -> None:
    tree = grow(3)
    assert grow(3).to_dict() == tree.to_dict() != grow(4).to_dict()
    again = DialogueTree.from_dict(tree.to_dict())
    assert again == tree and [n.children for n in again.nodes] == [n.children for n in tree.nodes]
    with pytest.raises(ConfigError, match="not a dialogue tree"):
        DialogueTree.from_dict({"nodes": [[None]]})


def test_what_makes_no_sense_is_refused() -> None:
    tree = DialogueTree()
    for start, messages, r in ((5, said("x"), 1.0), (ROOT, said("x"), float("nan")), (ROOT, [], 1.0)):
        with pytest.raises(ConfigError, match="can't be added"):
            tree.add(start, messages, r)
    with pytest.raises(ConfigError, match="above 0"):
        DialogueTree(temperature=0)


@given(
    st.lists(st.tuples(st.lists(st.text(max_size=6), min_size=1, max_size=4), st.floats(-2, 3)), max_size=12)
)
def test_any_dialogues_keep_the_books_straight(dialogues: list[tuple[list[str], float]]) -> None:
    tree = DialogueTree()
    for texts, r in dialogues:
        tree.add(ROOT, said(*texts), r)
    assert tree.root.visits == len(dialogues)
    assert tree.root.total == pytest.approx(sum(r for _, r in dialogues))
    for node in tree.nodes:
        assert node.visits == node.endings + sum(tree.nodes[i].visits for i in node.children)
