// Main: the page from top to bottom, its address, light and dark.

function themeButton() {
  const modes = ["auto", "light", "dark"], labels = { auto: "◐ auto", light: "○ light", dark: "● dark" };
  let mode = "auto";
  try { mode = modes.includes(localStorage.agentcommTheme) ? localStorage.agentcommTheme : "auto"; } catch { /* no storage for local files */ }
  const button = el("button", { type: "button", class: "icon wide", id: "theme", onclick: () => { mode = modes[(modes.indexOf(mode) + 1) % 3]; set(); } });
  function set() {
    if (mode === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = mode;
    button.textContent = labels[mode];
    button.setAttribute("aria-label", `Colours: ${mode}; change`);
    try { localStorage.agentcommTheme = mode; } catch { /* as above */ }
  }
  set();
  return button;
}

function banners() {
  const out = [];
  for (const run of facts.runs) {
    if (run.done < run.expected) {
      const when = run.last_at ? `; the last one ended ${new Date(run.last_at * 1000).toLocaleString()}` : "";
      out.push(el("p", { class: "banner", role: "note" }, el("b", {}, name(run.name), " is not finished."), ` ${count(run.done)} of ${plural(run.expected, "episode")} are in${when}. `, run.stopped ? ["It stopped: ", name(run.stopped), ". "] : "It is still going, or was cut off. ", "Everything below is of what is in so far."));
    }
    if (!run.questions) out.push(el("p", { class: "banner soft", role: "note" }, name(run.name), " doesn't say what its items ask: it was made by an older agentcomm. Repeating its command writes it down."));
  }
  return out;
}

function teamSection() {
  let shown = 0;
  const picture = el("div", { class: "picture" }), legend = el("div"), parts = el("div", { class: "parts-box" });
  const drawing = fitted(picture, (width) => drawGraph(facts.runs[shown], width));
  function pick(k) {
    shown = k;
    const run = facts.runs[k];
    drawing.redraw();
    legend.replaceChildren(graphLegend(run));
    parts.replaceChildren(partBars(run, (edge) => picture.firstElementChild?.light?.(edge)));
    [...tabs.children].forEach((tab, i) => { tab.setAttribute("aria-selected", String(i === k)); tab.setAttribute("tabindex", i === k ? 0 : -1); });
  }
  const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Run shown" }, facts.runs.map((run, k) => el("button", { type: "button", role: "tab", "aria-controls": "team-panel", vars: { "--colour": runColour(k) }, onclick: () => pick(k) }, el("span", { class: "dot", "aria-hidden": "true" }), name(run.name))));
  roving(tabs, () => [...tabs.children], (target) => { const k = [...tabs.children].indexOf(target.closest("button")); if (k >= 0 && k !== shown) pick(k); });
  const section = el("section", { "aria-labelledby": "team-h" }, el("div", { class: "section-head" }, el("h2", { id: "team-h" }, "Who reads whom, and what it costs"), facts.runs.length > 1 && tabs),
    el("div", { class: "team", id: "team-panel", role: facts.runs.length > 1 ? "tabpanel" : null }, el("div", { class: "panel" }, picture, legend), el("div", { class: "panel" }, parts)));
  requestAnimationFrame(() => pick(0));
  return section;
}

/** Curves and verdicts that lay beside the runs; pictures are images of their own, which follow light and dark. */
function findingsSection() {
  return el("section", { "aria-labelledby": "findings-h" }, el("h2", { id: "findings-h" }, "Measured"),
    el("div", { class: "findings" }, findings.map((f) => el("figure", { class: "panel" }, el("h3", {}, name(f.title)),
      f.image && el("img", { src: f.image, alt: f.title, width: 640 }), el("figcaption", { class: "quiet" }, marked(f.words))))));
}

function footer() {
  const reasons = Object.entries(facts.reasons).map(([why, n]) => `${count(n)} ${why}`).join(", ");
  return el("footer", {},
    facts.kept < facts.rows
      ? el("p", {}, `Conversations of ${count(facts.kept)} of ${plural(facts.rows, "row")} are in this file, which has a limit of size (${reasons}); the numbers are of all. `, el("code", {}, "agentcomm view RUN --size MB"), " takes in more.")
      : el("p", {}, `The conversations of all ${plural(facts.rows, "row")} are in this file. Texts are cut at ${count(facts.longest)} characters; the run's directory has them whole.`),
    el("p", {}, "Intervals are at 95 %. The reader pays: a message's tokens are counted where they are read, each time they are read. Replies from a cache cost nothing and are in no total."),
    el("p", {}, facts.runs.map((r, i) => [i ? el("br") : null, el("code", {}, marked(r.path))])),
    el("p", {}, `Made ${new Date(facts.made * 1000).toLocaleString()} by agentcomm. This file needs no network and sends nothing.`));
}

async function start() {
  const main = document.getElementById("main");
  const tasks = [...new Set(facts.runs.map((r) => r.task))];
  document.title = `${facts.runs.map((r) => r.name).join(", ")} · agentcomm`;
  document.getElementById("top").replaceChildren(el("span", { class: "brand" }, "agentcomm"), el("h1", {}, tasks.map((t, i) => [i ? ", " : "", name(t)])), el("span", { class: "quiet" }, `${plural(facts.runs.length, "run")} · ${plural(facts.rows, "row")}`), el("span", { class: "grow" }), themeButton());
  if (!("DecompressionStream" in window)) {
    main.replaceChildren(el("p", { class: "banner" }, "This browser is too old for this report (it can't unpack gzip); any of 2023 or later will do."));
    return;
  }
  if (!facts.runs.length) {
    document.title = "agentcomm";
    document.getElementById("top").replaceChildren(el("span", { class: "brand" }, "agentcomm"), el("h1", {}, "Measured"), el("span", { class: "grow" }), themeButton());
    main.replaceChildren(findingsSection(), el("footer", {}, el("p", {}, `Made ${new Date(facts.made * 1000).toLocaleString()} by agentcomm. This file needs no network and sends nothing.`)));
    document.documentElement.dataset.ready = "true";
    return;
  }
  const front = el("div", { class: "front-box" });
  fitted(front, drawFront);
  const shared = facts.runs.some((r) => r.point?.shared);
  const note = facts.runs.length < 2 ? "" : shared ? `Over the ${plural(facts.runs[0].point.rows, "row")} that all runs scored.` : "The runs share no scored row: each is shown over its own, and can't be compared.";
  main.replaceChildren(...banners(), ...(findings.length ? [findingsSection()] : []),
    el("section", { "aria-labelledby": "runs-h" }, el("h2", { id: "runs-h" }, facts.runs.length > 1 ? "Runs" : "Run"),
      el("div", { class: "overview" }, el("div", {}, el("div", { class: "panel flush" }, runsTable()), facts.runs.length === 1 && agentsTable(facts.runs[0])), el("figure", { class: "panel" }, front, el("figcaption", { class: "quiet" }, "Score against tokens, with 95 % intervals. Up and to the left is better.", note && " " + note)))),
    teamSection());
  const table = await openTable();
  const sheet = episodeSheet(table);
  const items = itemsTable(table, (row, state) => {
    const k = table.runs.findIndex((r, i) => r.state[row] !== ABSENT && (state.run < 0 || state.run === i));
    lastList = state.rows;
    location.hash = addressOf(table, row, Math.max(0, k));
  });
  let lastList = items.state.rows;
  main.append(items.section, footer());
  function route() {
    const at = rowAt(table, location.hash);
    if (!at) { if (sheet.sheet.open && !location.hash.includes("/")) sheet.close(); return; }
    const list = items.state.rows.includes(at.row) ? items.state.rows : lastList;
    sheet.show(at.row, at.run, list, items.focus);
  }
  addEventListener("hashchange", route);
  route();
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  document.getElementById("main").append(el("p", { class: "banner" }, "This report can't be drawn: ", String(error)));
  throw error;
});
