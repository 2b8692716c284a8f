"""The report in a real browser: it is drawn, found through, walked by keyboard, and believes no text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentcomm import topologies
from agentcomm.backends.scripted import Scripted
from agentcomm.evaluation.report import write_report
from agentcomm.ledger.limits import Limits
from tests.browser.conftest import Browser
from tests.reports import (
    HOSTILE,
    SINGLE,
    TEAM,
    Opened,
    answering,
    bulky,
    hostile,
    make,
    numbers,
    ten_thousand,
)

pytestmark = pytest.mark.browser

TAB, ENTER, ESCAPE, UP, DOWN, LEFT, RIGHT, HOME, END, PAGE_DOWN = (
    chr(c) for c in (0xE004, 0xE007, 0xE00C, 0xE013, 0xE015, 0xE012, 0xE014, 0xE011, 0xE010, 0xE00F)
)
"""Keys as WebDriver numbers them."""

ITEMS = 60
OPEN = "dialog[open]"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A team, the team without one agent, and a single agent, on the same items."""
    folder = tmp_path_factory.mktemp("three")
    task = numbers(ITEMS)
    team = make(folder / "team", TEAM, task, answering(lambda i: i % 5 > 0, fail=lambda i: i == 7))
    (team / "value.json").write_text(json.dumps({"edges": {"solver->judge": 0.2, "critic->judge": -0.1}}))
    cut = make(
        folder / "cut",
        TEAM,
        task,
        answering(lambda i: True),
        topology=TEAM.topology(without_agents=["checker"]),
    )
    solo = make(folder / "solo", SINGLE, task, answering(lambda i: i % 3 > 0))
    write_report([team, cut, solo], folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text in it is hostile."""
    folder = tmp_path_factory.mktemp("bad")
    write_report([hostile(folder / "hostile")], folder / "report.html")
    return folder / "report.html"


def focus_table(browser: Browser) -> None:
    browser.js("document.getElementById('grid').focus()")


def active(browser: Browser) -> str:
    return browser.text(".row.active .c-item")


def test_it_loads_without_a_word_on_the_console(browser: Browser, three: Path) -> None:
    browser.open(three)
    browser.js("return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.console() == []
    assert browser.count("table.runs tbody tr") == 3
    assert browser.count(".chart .point") == 3
    assert browser.js("return performance.getEntriesByType('resource').length") == 0


def test_edges_are_as_wide_as_their_tokens_and_coloured_by_their_worth(browser: Browser, three: Path) -> None:
    browser.open(three)
    facts = browser.js("return JSON.parse(document.getElementById('facts').textContent).runs[0]")
    drawn = browser.js(
        "return [...document.querySelectorAll('.graph .edge')].map((g) => [Number(g.dataset.edge), "
        "Number(g.querySelector('.line').getAttribute('stroke-width')), getComputedStyle(g.querySelector('.line')).stroke, "
        "g.querySelector('.line').getAttribute('stroke-dasharray')])"
    )
    edges = facts["edges"]
    most = max(e["tokens"] for e in edges)
    widest = max(width for _, width, _, _ in drawn)
    for index, width, _, dashes in drawn:
        assert width == pytest.approx(max(0.8, widest * edges[index]["tokens"] / most), abs=0.01)
        assert (dashes is not None) == (edges[index]["kind"] == "temporal")
    colour = {index: stroke for index, _, stroke, _ in drawn}
    plus, minus = (next(i for i, e in enumerate(edges) if e["worth"] == w) for w in (0.2, -0.1))
    unknown = {colour[i] for i, e in enumerate(edges) if e["worth"] is None}
    assert len(unknown) == 1 and len({colour[plus], colour[minus], *unknown}) == 3
    assert "neutral where unknown" in browser.text(".legend")


def test_what_was_cut_is_grey_in_the_run_that_cut_it(browser: Browser, three: Path) -> None:
    browser.open(three)
    assert browser.count(".graph .edge.cut") == browser.count(".graph .node.dead") == 0
    browser.click(".section-head .tabs button:nth-child(2)")
    browser.wait(lambda: browser.count(".graph .edge.cut") == 2)
    assert browser.count(".graph .node.dead") == 1


def test_pointing_at_an_edge_and_focusing_it_in_the_list_say_what_it_costs(
    browser: Browser, three: Path
) -> None:
    browser.open(three)
    browser.wait(lambda: browser.count(".edge-row") == 6)
    browser.js("document.querySelector('.edge-row').focus()")
    first = browser.text("#tip")
    assert "tokens paid by the reader" in first and "messages" in first and "of all input" in first
    assert browser.count(".graph.dimmed .edge.hot") == 1
    browser.press(DOWN)
    assert browser.text("#tip") != first
    browser.js("document.querySelector('.graph .node').focus()")
    assert "calls" in browser.text("#tip")
    browser.press(RIGHT)
    assert (
        browser.js("return [...document.querySelectorAll('.graph .node')].indexOf(document.activeElement)")
        == 1
    )


def test_filters_narrow_the_table_and_add_up(browser: Browser, three: Path) -> None:
    browser.open(three)
    assert browser.text(".count") == f"{ITEMS} items"
    browser.click("[data-filter=failed]")
    assert browser.text(".count") == f"1 of {ITEMS} items" and active(browser) == "q00007"
    browser.click("[data-filter=failed]")
    browser.click("[data-filter=disagreed]")
    disagreed = browser.text(".count")
    browser.click("[data-filter=wrong]")
    assert browser.text(".count") == disagreed  # whoever disagreed, somebody was wrong
    browser.js(
        "const s = document.querySelector('.filters select'); s.value = 2; s.dispatchEvent(new Event('change'))"
    )
    assert browser.text(".count") == f"20 of {ITEMS} items"
    assert (
        browser.js("return document.querySelector('[data-filter=wrong]').getAttribute('aria-pressed')")
        == "true"
    )


def test_words_are_found_in_ids_questions_and_answers(browser: Browser, three: Path) -> None:
    browser.open(three)
    browser.press("/")
    browser.press("13 tickets")
    browser.wait(lambda: browser.text(".count") == f"1 of {ITEMS} items")
    assert active(browser) == "q00013"


def test_a_click_on_a_head_sorts_and_another_turns_it_round(browser: Browser, three: Path) -> None:
    browser.open(three)
    tokens = "return [...document.querySelectorAll('.rows .row')].map((r) => Number(r.querySelector('.c-tokens .n').textContent.replace(/[,+]/g, '')))"
    browser.click(".head.c-tokens button")
    seen = browser.js(tokens)
    assert seen == sorted(seen, reverse=True) and len(set(seen)) > 3
    browser.click(".head.c-tokens button")
    seen = browser.js(tokens)
    assert seen == sorted(seen)
    assert (
        browser.js("return document.querySelector('.head.c-tokens').getAttribute('aria-sort')") == "ascending"
    )


def test_an_episode_is_opened_walked_and_closed_by_keyboard_alone(browser: Browser, three: Path) -> None:
    browser.open(three)
    for _ in range(60):
        browser.press(TAB)
        if browser.js("return document.activeElement.id") == "grid":
            break
    assert browser.js("return document.activeElement.id") == "grid"
    assert browser.js("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.press(DOWN, DOWN, DOWN)
    assert active(browser) == "q00003"
    browser.press(ENTER)
    browser.wait(lambda: browser.count(OPEN))
    assert browser.text("#sheet-title") == "q00003"
    assert browser.js("return location.hash") == "#team/q00003"
    assert browser.count(f"{OPEN} .round") == 2 and browser.count(f"{OPEN} .turn") == 7
    browser.press("j")
    browser.wait(lambda: browser.text("#sheet-title") == "q00004")
    browser.press(ESCAPE)
    browser.wait(lambda: not browser.count(OPEN))
    assert browser.js("return location.hash") == ""
    assert browser.js("return document.activeElement.id") == "grid"
    browser.press(END)
    assert active(browser) == f"q{ITEMS - 1:05d}"
    browser.press(HOME, PAGE_DOWN)
    assert active(browser) > "q00005"


def test_the_active_row_is_what_a_screen_reader_is_told(browser: Browser, three: Path) -> None:
    browser.open(three)
    focus_table(browser)
    browser.press(END)
    told = browser.js(
        "const g = document.getElementById('grid'), r = document.getElementById(g.getAttribute('aria-activedescendant'));"
        "return [r.getAttribute('role'), r.getAttribute('aria-rowindex'), g.getAttribute('aria-rowcount')]"
    )
    assert told == ["row", str(ITEMS + 1), str(ITEMS + 1)]


def test_an_address_opens_a_conversation_in_its_run(browser: Browser, three: Path) -> None:
    browser.open(three, "#cut/q00012")
    browser.wait(lambda: browser.count(OPEN))
    assert browser.text("#sheet-title") == "q00012"
    assert browser.text(f"{OPEN} [role=tab][aria-selected=true] bdi") == "cut"
    assert browser.count(f"{OPEN} .turn") == 5
    browser.js("location.hash = '#solo/q00013'")
    browser.wait(lambda: browser.text("#sheet-title") == "q00013")
    browser.js("location.hash = '#nobody/q00013'")
    assert browser.console() == []


def test_a_conversation_shows_what_was_given_what_it_cost_and_what_was_cut_away(
    browser: Browser, three: Path
) -> None:
    browser.open(three, "#team/q00011")
    browser.wait(lambda: browser.count(f"{OPEN} .turn") == 7)
    page = browser.text(OPEN)
    for words in ("System, shared by the team", "It is known that Mira had exactly 11 before", "Find the first mistake",
                  "from solver", "last round", "its own earlier replies", "Reference", "truncate"):  # fmt: skip
        assert words in page
    said, delivered = browser.js(
        "const c = document.querySelector('dialog .compare'); return [...c.querySelectorAll('.text')].map((t) => t.textContent)"
    )
    assert said.startswith(delivered[:100]) and len(delivered) < len(said)
    assert browser.text(f"{OPEN} .compare del") in said
    total = browser.js("return [...document.querySelectorAll('dialog .turn:last-child .stack span')].length")
    assert total >= 4
    browser.js("location.hash = '#team/q00007'")
    browser.wait(lambda: "refused by a filter" in browser.text(f"{OPEN} .trouble"))
    assert browser.count(f"{OPEN} .turn.broken") == 1


def test_hostile_texts_show_as_text(browser: Browser, bad: Path) -> None:
    browser.open(bad)
    focus_table(browser)
    browser.press(ENTER)
    browser.wait(lambda: browser.count(f"{OPEN} .turn") == 2)
    browser.press("e")
    shown = browser.text(f"{OPEN} .turn .said .text")
    for text in HOSTILE[:3] + HOSTILE[7:]:
        assert text in shown
    for mark in ("U+202E", "U+2028", "U+D800", "U+0000"):
        assert mark in shown
    assert browser.count("img") == browser.count("b [onload]") == browser.count("main script") == 0
    assert "owned" not in browser.js("return document.title")
    assert browser.count("script:not([type])") == 1
    assert browser.console() == []


def test_the_policy_stops_what_a_mistake_would_let_through(browser: Browser, three: Path) -> None:
    browser.open(three)
    refused = browser.js(
        "try { document.body.innerHTML = '<b>x</b>'; return 'let through' } catch (error) { return error.name }"
    )
    assert refused == "TypeError"
    browser.js(
        "const s = document.createElement('img'); s.src = 'http://127.0.0.1:9/x.png'; document.body.append(s)"
    )
    browser.wait(lambda: any("Content Security Policy" in line for line in browser.console()))


def test_it_is_dark_where_the_system_is_and_the_button_changes_it(browser: Browser, three: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    browser.open(three)
    light = browser.js(paper)
    browser.open(three, dark=True)
    dark = browser.js(paper)
    assert light != dark
    browser.click("#theme")
    assert browser.js(paper) == light
    browser.click("#theme")
    assert browser.js(paper) == dark
    browser.click("#theme")  # back to the system's
    assert "auto" in browser.text("#theme")


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser: Browser, three: Path, dark: bool) -> None:
    """WCAG AA: 4.5 to 1, for ink, quiet text, marks and links on paper, cards and sunk ground."""
    browser.open(three, dark=dark)
    ratios = browser.js("""
        const probe = document.createElement('div'); document.body.append(probe);
        const light = (name) => { probe.style.color = `var(${name})`;
          const c = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
        const out = {};
        for (const ink of ['--ink', '--quiet', '--good', '--bad', '--part', '--accent'])
          for (const ground of ['--paper', '--card', '--sunk']) {
            const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
            out[ink + ' on ' + ground] = (a + 0.05) / (b + 0.05); }
        for (const [ink, ground] of [['--bad', '--bad-soft'], ['--warm', '--warm-soft']]) {
            const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
            out[ink + ' on ' + ground] = (a + 0.05) / (b + 0.05); }
        return out;
    """)
    assert {pair: round(r, 2) for pair, r in ratios.items() if r < 4.5} == {}


def test_everything_that_can_be_used_has_a_name(browser: Browser, three: Path) -> None:
    browser.open(three, "#team/q00011")
    browser.wait(lambda: browser.count(OPEN))
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    used = {
        "button",
        "tab",
        "textbox",
        "searchbox",
        "combobox",
        "grid",
        "listbox",
        "option",
        "dialog",
        "img",
        "link",
    }
    nameless = [
        n["role"]["value"]
        for n in nodes
        if not n.get("ignored") and n["role"]["value"] in used and not n.get("name", {}).get("value")
    ]
    assert nameless == [] and any(n["role"]["value"] == "dialog" for n in nodes if not n.get("ignored"))


def test_it_fits_a_phone(browser: Browser, three: Path) -> None:
    browser.open(three, size=(390, 800))
    assert browser.js("return document.documentElement.scrollWidth") <= 390
    browser.js("location.hash = '#team/q00011'")
    browser.wait(lambda: browser.count(OPEN))
    assert browser.js("return document.querySelector('dialog').scrollWidth <= 390")


def test_a_run_still_going_says_so_at_the_top(browser: Browser, tmp_path: Path) -> None:
    run = make(tmp_path / "half", SINGLE, numbers(30), answering(lambda i: True), limits=Limits(calls=9))
    write_report([run], tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert "is not finished" in browser.text("main > :first-child")
    assert "of 30 episodes" in browser.text(".banner")
    browser.click("[data-filter=waiting]")
    assert browser.count(".rows .row") >= 5


def test_a_conversation_that_had_no_room_says_where_it_is(browser: Browser, tmp_path: Path) -> None:
    write_report([bulky(tmp_path / "bulky", 400)], tmp_path / "report.html", size=1_000_000)
    browser.open(tmp_path / "report.html")
    assert "of 400 rows are in this file" in browser.text("footer")
    browser.js("location.hash = '#bulky/q00007'")
    browser.wait(lambda: browser.count(f"{OPEN} .turn") == 1)
    absent = Opened(tmp_path / "report.html").where[0].index(-1)
    browser.js(f"location.hash = '#bulky/q{absent:05d}'")
    browser.wait(lambda: "isn't in the file" in browser.text(f"{OPEN} .talk"))
    assert browser.console() == []


def test_fifty_agents_are_drawn_and_can_be_walked(browser: Browser, tmp_path: Path) -> None:
    graph = topologies.complete([f"expert {i}" for i in range(49)], decision="judge")
    run = make(tmp_path / "fifty", graph, numbers(2), Scripted(lambda request: "I agree."))
    write_report([run], tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    browser.wait(lambda: browser.count(".graph .node") == 50)
    assert browser.count(".graph .edge") == len(graph.edges) > 1000
    inside = browser.js(
        "const box = document.querySelector('.graph').getBoundingClientRect();"
        "return [...document.querySelectorAll('.graph .node')].every((n) => { const b = n.getBoundingClientRect();"
        "return b.left >= box.left - 1 && b.right <= box.right + 1 && b.top >= box.top - 1 && b.bottom <= box.bottom + 1 })"
    )
    assert inside
    focus_table(browser)
    browser.press(ENTER)
    browser.wait(lambda: browser.count(f"{OPEN} .turn") == 50)
    assert browser.console() == []


def test_ten_thousand_rows_are_few_elements_and_filter_at_once(browser: Browser, tmp_path: Path) -> None:
    write_report([ten_thousand(tmp_path / "many")], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 20_000_000
    browser.open(tmp_path / "report.html")
    assert browser.text(".count") == "10,000 items"
    assert browser.count(".rows .row") < 60
    focus_table(browser)
    browser.press(END)
    assert active(browser) == "q09999" and browser.count(".rows .row") < 60
    spent = browser.js(
        "const t = performance.now(); document.querySelector('[data-filter=wrong]').click(); return performance.now() - t"
    )
    assert spent < 2000  # milliseconds; about 20 on two cores
    assert browser.text(".count") == "3,333 of 10,000 items"
    browser.press(END, ENTER)
    browser.wait(lambda: browser.text("#sheet-title") == "q09998")
