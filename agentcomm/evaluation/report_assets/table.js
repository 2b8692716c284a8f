// Table: one row an item (and sample), as many as there are; only those in sight are elements.

const ROW = 40;

function itemsTable(table, open) {
  const state = { filters: new Set(), run: -1, words: "", sort: "order", down: false, active: 0, rows: [] };
  const runs = table.runs;
  const sees = (row, test) => (state.run >= 0 ? test(runs[state.run], row) : runs.some((r) => test(r, row)));
  const FILTERS = [
    ["failed", "Failed", "the episode gave no answer", (row) => sees(row, (r, i) => r.state[i] === FAILED)],
    ["wrong", "Wrong", "scored below one half", (row) => sees(row, (r, i) => r.state[i] === OK && r.score[i] !== null && r.score[i] < 0.5)],
    ["disagreed", "Disagreed", "runs scored it differently", (row) => table.disagreed[row]],
    ["dear", "Most expensive", "the dearest hundredth, at least ten", (row) => table.dear.has(row)],
    ["retried", "Retried", "some attempt failed", (row) => sees(row, (r, i) => r.failed_calls[i] > 0)],
    ["waiting", "Not run", "has no result yet", (row) => sees(row, (r, i) => r.state[i] === NOT_RUN)],
  ];
  const all = Array.from({ length: table.length }, (_, i) => i);

  // ---- what is above the table
  const counts = el("span", { class: "count", role: "status" });
  const search = el("input", { type: "search", placeholder: "Find in ids, questions, answers", "aria-label": "Find items", spellcheck: "false" });
  let typing;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { state.words = search.value.trim().toLowerCase(); refresh(); }, 120); });
  const buttons = FILTERS.map(([key, label, note, test]) => {
    const n = all.reduce((a, row) => a + (test(row) ? 1 : 0), 0);
    if (!n || (key === "disagreed" && runs.length < 2) || (key === "dear" && n === table.length)) return null;
    return el("button", { class: "filter", type: "button", "aria-pressed": "false", title: note, "data-filter": key, onclick: (event) => {
      const on = !state.filters.has(key);
      state.filters[on ? "add" : "delete"](key);
      event.currentTarget.setAttribute("aria-pressed", String(on));
      refresh();
    } }, label, el("span", { class: "badge" }, count(n)));
  });
  const inRun = runs.length > 1 && el("select", { "aria-label": "Filters look at", onchange: (event) => { state.run = Number(event.target.value); refresh(); } },
    el("option", { value: -1 }, "in any run"), facts.runs.map((r, i) => el("option", { value: i }, "in " + r.name)));
  const bar = el("div", { class: "filters", role: "group", "aria-label": "Filters" }, buttons, inRun, search, counts);

  // ---- the table itself
  const columns = [
    { key: "order", label: "Item", value: (i) => i, cls: "c-item" },
    { key: "question", label: "Question", value: (i) => table.question[i], cls: "c-question" },
    ...runs.map((r, k) => ({ key: "score" + k, label: facts.runs[k].name, run: k, value: (i) => (r.state[i] === FAILED ? -1 : r.state[i] === OK ? (r.score[i] ?? 2) : 3), cls: "c-score" })),
    ...runs.map((r, k) => ({ key: "tokens" + k, label: "tokens", run: k, value: (i) => (r.state[i] > NOT_RUN ? r.tokens[i] : -1), cls: "c-tokens" })),
  ];
  const ordered = [columns[0], columns[1], ...runs.flatMap((_, k) => [columns[2 + k], columns[2 + runs.length + k]])];
  const heads = ordered.map((c, n) => el("div", { class: `head ${c.cls}`, role: "columnheader", "aria-colindex": n + 1, "aria-sort": "none", vars: c.run === undefined ? {} : { "--colour": runColour(c.run) } },
    el("button", { type: "button", title: `sort by ${c.key === "order" ? "the task's order" : c.cls === "c-tokens" ? "tokens of " + facts.runs[c.run].name : c.label}`, onclick: () => {
      if (state.sort === c.key) state.down = !state.down;
      else [state.sort, state.down] = [c.key, c.cls === "c-tokens"];
      refresh();
    } }, c.cls === "c-score" && el("span", { class: "dot", "aria-hidden": "true" }), c.cls === "c-tokens" && el("span", { class: "sr" }, facts.runs[c.run].name + " "), name(c.label), el("span", { class: "mark", "aria-hidden": "true" }))));
  const body = el("div", { class: "rows", role: "rowgroup" });
  const space = el("div", { class: "space", role: "presentation" }, body);
  const view = el("div", { class: "view", role: "grid", tabindex: 0, "aria-label": "Items. Arrow keys move, Enter opens a conversation.", "aria-colcount": ordered.length, id: "grid" },
    el("div", { class: "row heads", role: "row", "aria-rowindex": 1 }, heads), space);
  view.style.setProperty("--runs", runs.length);

  const glyph = (r, i) => {
    if (r.state[i] === FAILED) return el("span", { class: "chip failed" }, "failed");
    if (r.state[i] === NOT_RUN) return el("span", { class: "quiet" }, r.calls[i] ? "cut off" : "not run");
    if (r.state[i] === ABSENT) return el("span", { class: "quiet", title: "not an item of this run" }, "·");
    const s = r.score[i];
    if (s === null) return el("span", { class: "quiet" }, "unscored");
    return el("span", { class: "verdict " + (s >= 0.999 ? "right" : s <= 0.001 ? "wrong" : "part") }, s >= 0.999 ? "✓" : s <= 0.001 ? "✗" : s.toFixed(2), el("span", { class: "sr" }, s >= 0.999 ? " right" : s <= 0.001 ? " wrong" : ""));
  };
  function makeRow(at) {
    const i = state.rows[at];
    return el("div", { class: "row" + (at === state.active ? " active" : "") + (at % 2 ? " odd" : ""), role: "row", id: "row-" + at, "aria-rowindex": at + 2, "aria-selected": String(at === state.active), vars: { top: at * ROW + "px" },
      onclick: () => { state.active = at; draw(); open(i, state); } },
      el("div", { class: "c-item", role: "gridcell" }, name(table.item[i]), table.sample[i] ? el("span", { class: "quiet" }, ` #${table.sample[i] + 1}`) : null),
      el("div", { class: "c-question", role: "gridcell" }, name(table.question[i])),
      runs.map((r, k) => [
        el("div", { class: "c-score", role: "gridcell" }, glyph(r, i), r.state[i] === OK && el("span", { class: "answer" }, name(r.extracted[i]))),
        el("div", { class: "c-tokens", role: "gridcell" }, r.calls[i] > 0 && [el("span", { class: "mini", vars: { width: (56 * r.tokens[i] / table.most).toFixed(1) + "px", "--colour": runColour(k) } }), el("span", { class: "n" }, count(r.tokens[i]), r.unknown[i] ? "+" : ""), r.failed_calls[i] > 0 && el("span", { class: "again", title: plural(r.failed_calls[i], "failed attempt") }, "↻")]),
      ]));
  }
  let drawn = [-1, -1];
  function draw() {
    const top = Math.max(0, view.scrollTop), seen = Math.ceil(view.clientHeight / ROW);
    const from = Math.max(0, Math.floor(top / ROW) - 8), to = Math.min(state.rows.length, from + seen + 16);
    const rows = [];
    for (let at = from; at < to; at++) rows.push(makeRow(at));
    body.replaceChildren(...rows);
    drawn = [from, to];
    if (state.rows.length) view.setAttribute("aria-activedescendant", "row-" + state.active);
    else view.removeAttribute("aria-activedescendant");
  }
  let waiting = false;
  view.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const from = Math.floor(view.scrollTop / ROW), to = from + Math.ceil(view.clientHeight / ROW);
      if (from - 2 < drawn[0] || to + 2 > drawn[1]) draw();
    });
  });
  new ResizeObserver(draw).observe(view);
  function go(at) {
    state.active = Math.max(0, Math.min(state.rows.length - 1, at));
    const y = state.active * ROW, room = view.clientHeight - ROW;
    if (y < view.scrollTop) view.scrollTop = y;
    else if (y + ROW > view.scrollTop + room) view.scrollTop = y + ROW - room;
    draw();
  }
  view.addEventListener("keydown", (event) => {
    if (event.target !== view || !state.rows.length) return;
    const page = Math.max(1, Math.floor(view.clientHeight / ROW) - 2);
    const to = { ArrowDown: state.active + 1, ArrowUp: state.active - 1, PageDown: state.active + page, PageUp: state.active - page, Home: 0, End: state.rows.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); go(to); }
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(state.rows[state.active], state); }
  });

  function refresh() {
    const tests = FILTERS.filter(([key]) => state.filters.has(key)).map((f) => f[3]);
    const words = state.words.split(/\s+/).filter(Boolean);
    let rows = all.filter((i) => tests.every((t) => t(i)) && words.every((w) => table.searched[i].includes(w)));
    const column = columns.find((c) => c.key === state.sort);
    if (state.sort !== "order" || state.down) {
      const value = new Map(rows.map((i) => [i, column.value(i)])), sign = state.down ? -1 : 1;
      rows.sort((a, b) => { const x = value.get(a), y = value.get(b); return (x < y ? -1 : x > y ? 1 : 0) * sign || a - b; });
    }
    state.rows = rows;
    state.active = 0;
    view.scrollTop = 0;
    space.style.height = rows.length * ROW + "px";
    view.setAttribute("aria-rowcount", rows.length + 1);
    view.style.setProperty("--height", Math.min(Math.max(rows.length, 2), 16) * ROW + ROW + 2 + "px");
    const unit = table.samples ? "row" : "item";
    counts.textContent = rows.length === table.length ? plural(table.length, unit) : `${count(rows.length)} of ${plural(table.length, unit)}`;
    ordered.forEach((c, n) => heads[n].setAttribute("aria-sort", c.key !== state.sort ? "none" : state.down ? "descending" : "ascending"));
    empty.hidden = rows.length > 0;
    draw();
  }
  const empty = el("p", { class: "quiet pad", hidden: true }, "No item fits these filters.");
  const section = el("section", { id: "items", "aria-labelledby": "items-h" }, el("h2", { id: "items-h" }, "Items"), bar, view, empty,
    el("p", { class: "quiet foot" }, el("kbd", {}, "↑"), el("kbd", {}, "↓"), " move  ", el("kbd", {}, "Enter"), " opens the conversation  ", el("kbd", {}, "Esc"), " closes it  ", el("kbd", {}, "/"), " finds"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName ?? "") && !document.querySelector("dialog[open]")) { event.preventDefault(); search.focus(); }
  });
  refresh();
  return { section, state, go, focus: () => view.focus({ preventScroll: true }) };
}
