"""Pictures: SVG that parses, with every point, interval, curve and name in it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from agentcomm.errors import UserError
from agentcomm.information.pictures import (
    Level,
    Point,
    Series,
    mi_against_score,
    rate_distortion,
    score_against_cost,
    ticks,
    tokens_against_score,
)
from agentcomm.information.rate_distortion import fit_rate_distortion

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [Point(16, 0.4, 0.3, 0.5), Point(64, 0.2, 0.1, 0.3)]


def test_points_intervals_curves_and_ends_are_drawn_in_both_modes() -> None:
    rates = np.array([10.0, 20, 40, 80])
    d = (np.random.default_rng(0).random((4, 60)) < (0.6 * np.exp(-rates / 20) + 0.2)[:, None]).astype(float)
    fit = fit_rate_distortion(d, rates, resamples=50)
    svg = rate_distortion(
        "a < b & c",
        [Series("one", POINTS, fit), Series('<script>"', POINTS)],
        [Level("full", 0.1, 0.05, 0.2)],
    )
    root = ElementTree.fromstring(svg)
    assert "prefers-color-scheme: dark" in svg
    said = [e.text for e in root.iter(f"{SVG}text")]
    assert {"a < b & c", "one", '<script>"', "full", "loss (1 − score)"} <= set(said)
    classes = [e.get("class") for e in root.iter()]
    assert classes.count("bar") == 4
    assert classes.count("band") == classes.count("line") == 1
    assert classes.count("about") == 1
    titles = [e.text or "" for e in root.iter(f"{SVG}title")]
    assert "one: 0.400 at 16 [0.300, 0.500]" in titles


def test_everything_lies_within_the_picture() -> None:
    points = [Point(3.2, 0.0, 0.0, 0.1, "32", 2.9, 3.5), Point(-1.0, 1.0, 0.9, 1.0, "64", -1.4, -0.5)]
    for svg in (
        mi_against_score("mi", [Series("a", points)]),
        tokens_against_score("t", [Series(f"a long name of a compressor {i}", points) for i in range(9)]),
        score_against_cost("c", [Series("alone", [Point(5, 0.5)])]),
    ):
        root = ElementTree.fromstring(svg)
        wide, high = float(root.get("width", 0)), float(root.get("height", 0))
        for element in root.iter():
            for name, most in (
                ("x", wide),
                ("cx", wide),
                ("x1", wide),
                ("x2", wide),
                ("y", high),
                ("cy", high),
            ):
                if (value := element.get(name)) is not None:
                    assert 0 <= float(value) <= most, (element.tag, name, value)


def test_ticks_are_round() -> None:
    assert ticks(0, 130) == [0, 20, 40, 60, 80, 100, 120]
    assert ticks(-1.4, 3.6) == [-1, 0, 1, 2, 3]
    assert ticks(0.31, 0.42) == [0.32, 0.34, 0.36, 0.38, 0.4, 0.42]


def test_nothing_and_what_is_unknown_is_not_drawn() -> None:
    with pytest.raises(UserError, match="at least one point"):
        rate_distortion("t", [Series("a", [])])
    with pytest.raises(UserError, match="not a finite number"):
        rate_distortion("t", [Series("a", [Point(float("nan"), 0.5)])])


def test_numbers_that_differ_by_rounding_are_not_blown_up_to_an_axis() -> None:
    points = [Point(3.58496247, 4.99999999, 4.99999998, 5.0), Point(3.58496250, 5.0)]
    drawn = mi_against_score("at the cap", [Series("extract", points)])
    assert not re.search(r">\d\.\d{4,}<", drawn)
