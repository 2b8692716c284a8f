"""Who knows what: made-up facts about made-up people, split over specialists.

Nobody can have seen these items in training, there are as many as you like, every answer is one
exact word, and it is known which specialists' facts are needed (``item.metadata["needed"]``), so a
topology can be judged against the truth. Copy this file and change the tables to make your own.

    one hop    What pet does Ada have?                              needs one specialist
    two hops   What pet does the person who lives in Oslo have?     needs two (``by="attribute"``)

``by="people"`` gives each specialist the facts about its own people; ``by="attribute"`` gives each
one attribute of everybody: a different one on each item, or with ``fixed=True`` always the same
(``s1`` the cities, ``s2`` the jobs, ...), so that a question tells who can answer it and a policy
can learn whom to ask. An agent sees its share with ``Agent(view="s1")``, ``"s2"``, ...
"""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Literal, NamedTuple

from agentcomm.errors import TaskError
from agentcomm.task import Item, Score, Task

Split = Literal["learn", "validate", "score"]
SPLITS: tuple[Split, ...] = ("learn", "validate", "score")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Ada Ben Cara Dan Eve Finn Gail Hugo Iris Jack Kate Liam Mona Nils Olga Paul Rosa Sam Tina "
    "Umar Vera Wes Yara Zack Amir Beth Carl Dora Emil Faye Greg Hana"
)


class Attribute(NamedTuple):
    """One kind of fact: how it is told, asked for, and used to point at a person."""

    name: str
    fact: str
    question: str
    person: str
    values: tuple[str, ...]


# fmt: off
ATTRIBUTES = (
    Attribute("city", "{who} lives in {value}.", "Which city does {who} live in?", "lives in {value}", _words(
        "Oslo Rome Lima Cairo Delhi Quito Paris Tokyo Berlin Madrid Dublin Vienna Athens Boston Sydney Warsaw")),
    Attribute("job", "{who} works as a {value}.", "What job does {who} have?", "works as a {value}", _words(
        "nurse baker pilot farmer lawyer teacher plumber dentist painter driver singer tailor cook barber sailor")),
    Attribute("pet", "{who} has a pet {value}.", "What pet does {who} have?", "has a pet {value}", _words(
        "cat dog parrot rabbit hamster turtle snake pony goat lizard ferret pigeon duck goldfish mouse frog")),
    Attribute("colour", "{who} likes the colour {value}.", "What colour does {who} like?", "likes the colour {value}",
        _words("red blue green yellow purple orange pink brown black white grey gold silver violet beige navy")),
    Attribute("food", "{who} eats {value}.", "What food does {who} eat?", "eats {value}", _words(
        "pizza soup rice pasta bread cheese salad noodles curry beans eggs apples bananas carrots grapes cherries")),
    Attribute("sport", "{who} plays {value}.", "What sport does {who} play?", "plays {value}", _words(
        "tennis golf football hockey rugby cricket basketball volleyball chess darts squash polo softball lacrosse")),
)
# fmt: on
MOST_PEOPLE = min(len(NAMES), *(len(a.values) for a in ATTRIBUTES))


def task(
    limit: int | None = None,
    seed: int = 0,
    split: Split = "score",
    *,
    specialists: int = 4,
    facts: int = 4,
    hops: Literal[1, 2] = 1,
    by: Literal["people", "attribute"] = "people",
    relevant: int | None = None,
    fixed: bool = False,
) -> Task:
    """``limit`` items (100 if not given) with ``specialists`` views of ``facts`` facts each.

    With ``relevant``, questions need only the first so many specialists: the others are noise.
    """
    people, kinds = (specialists, facts) if by == "people" else (facts, specialists)
    if split not in SPLITS or by not in ("people", "attribute") or hops not in (1, 2):
        raise TaskError("records: split: learn, validate or score; by: people or attribute; hops: 1 or 2")
    if hops == 2 and (by == "people" or specialists < 2):
        raise TaskError("records: two hops join two specialists; use by=attribute and specialists >= 2")
    if fixed and by == "people":
        raise TaskError("records: fixed=true fixes who knows which attribute; use by=attribute with it")
    if not (1 <= people <= MOST_PEOPLE and 1 <= kinds <= len(ATTRIBUTES)):
        most = f"{MOST_PEOPLE} people with {len(ATTRIBUTES)} attributes"
        raise TaskError(f"records: the tables make at most {most}, not {people} with {kinds}; extend them")
    relevant = specialists if relevant is None else relevant
    if not hops <= relevant <= specialists:
        raise TaskError(
            f"records: relevant is from {hops} (hops) to {specialists} (specialists), not {relevant}"
        )
    config = {"seed": seed, "split": split, "specialists": specialists, "facts": facts,
              "hops": hops, "by": by, "relevant": relevant}  # fmt: skip
    if fixed:
        config["fixed"] = True
    numbers = range(100 if limit is None else limit)
    items = tuple(_item(seed, split, number, people, kinds, hops, by, relevant, fixed) for number in numbers)
    return Task("records", items, score, "Facts about people, split over specialists.", config, extract)


def _item(
    seed: int,
    split: Split,
    number: int,
    people: int,
    kinds: int,
    hops: int,
    by: str,
    relevant: int,
    fixed: bool,
) -> Item:
    """Item ``number`` of a split: drawn again until its own hash falls into that split."""
    for draw in range(1000):
        rng = random.Random(f"records/{seed}/{split}/{number}/{draw}")  # strings are hashed with SHA-512
        names = rng.sample(NAMES, people)
        attributes = list(ATTRIBUTES[:kinds]) if fixed else rng.sample(ATTRIBUTES, kinds)
        values = {a.name: rng.sample(a.values, people) for a in attributes}
        who = rng.randrange(relevant if by == "people" else people)
        asked, *others = rng.sample(attributes if by == "people" else attributes[:relevant], k=hops)
        subject, needed = names[who], [asked.name]
        if hops == 2:
            subject = "the person who " + others[0].person.format(value=values[others[0].name][who])
            needed.append(others[0].name)
        table = [
            [a.fact.format(who=names[p], value=values[a.name][p]) for p in range(people)] for a in attributes
        ]
        shares = [rng.sample(column, people) for column in table]
        needed_shares = [i for i, a in enumerate(attributes) if a.name in needed]
        if by == "people":
            shares, needed_shares = [list(row) for row in zip(*table, strict=True)], [who]
        item = Item(
            id="",
            question=asked.question.format(who=subject),
            answer=values[asked.name][who],
            views={f"s{i + 1}": "\n".join(share) for i, share in enumerate(shares)},
            metadata={"needed": tuple(f"s{i + 1}" for i in needed_shares), "split": split},
        )
        if SPLITS[int(item.content_hash, 16) % len(SPLITS)] == split:
            return dataclasses.replace(item, id=f"records-{item.content_hash[:12]}")
    raise AssertionError("unreachable: a third of all draws falls into each split")


def score(item: Item, answer: str) -> Score:
    """1 if the answer names the right value and no other value that the question left open.

    Case, punctuation and the sentence around the value are free. An answer that lists candidates,
    or denies the right one ("not Oslo"), scores 0.
    """
    named = values_in(item, answer)
    extracted = ", ".join(sorted(named)) or None
    if named != {item.answer.lower()}:
        return Score(0.0, extracted, "names several values" if len(named) > 1 else "")
    denied = re.search(rf"(?i)\b(not|never|isn't|doesn't)\s+(\w+\s+){{0,3}}{item.answer}\b", answer)
    return Score(0.0, extracted, "denies the value") if denied else Score(1.0, extracted)


def values_in(item: Item, answer: str) -> set[str]:
    """The values an answer names, but for those that the question itself does."""
    said = re.findall(r"\w+", answer.lower())
    asked = set(re.findall(r"\w+", item.question.lower()))
    every_value = {value for attribute in ATTRIBUTES for value in attribute.values}
    return {v.lower() for v in every_value if {v.lower(), v.lower() + "s"} & set(said)} - asked


def extract(item: Item, answer: str) -> str | None:
    """The one value an answer names, for votes."""
    named = values_in(item, answer)
    return named.pop() if len(named) == 1 else None
