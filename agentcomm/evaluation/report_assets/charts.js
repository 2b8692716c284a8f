// Charts: score against tokens, the runs side by side, and what the tokens were spent on.

const runColour = (i) => `var(--run-${i % 8})`;

function niceSteps(low, high, wanted) {
  const raw = (high - low) / wanted || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const steps = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) steps.push(k * step || 0);
  return steps;
}

/** Score against tokens an item, with 95 % intervals both ways; the front is a line. */
function drawFront(width) {
  const shown = facts.runs.map((run, i) => ({ run, i, p: run.point })).filter((d) => d.p && d.p.score !== null);
  if (!shown.length) return el("p", { class: "quiet pad" }, "No run has a scored item yet.");
  const height = Math.max(240, Math.min(340, width * 0.62)), left = 42, right = 16, top = 14, bottom = 40;
  const xs = shown.flatMap(({ p }) => [p.tokens - (p.spread ?? 0), p.tokens + (p.spread ?? 0)]).filter((x) => x > 0);
  const log = Math.max(...xs) / Math.min(...xs) > 15;
  const map = log ? Math.log10 : (x) => x;
  let [x0, x1] = log ? [map(Math.min(...xs)) - 0.15, map(Math.max(...xs)) + 0.3] : [0, Math.max(...xs, 1) * 1.18];
  const lows = shown.map(({ p }) => p.low ?? p.score), highs = shown.map(({ p }) => p.high ?? p.score);
  let y0 = Math.max(0, Math.min(...lows) - 0.05), y1 = Math.min(1, Math.max(...highs) + 0.05);
  if (y1 - y0 < 0.2) [y0, y1] = [Math.max(0, y0 - 0.1), Math.min(1, y1 + 0.1)];
  const X = (v) => left + (map(Math.max(v, 1e-9)) - x0) / (x1 - x0) * (width - left - right);
  const Y = (v) => top + (y1 - v) / (y1 - y0) * (height - top - bottom);
  const out = [];
  for (const v of niceSteps(y0, y1, 5)) out.push(svg("line", { class: "rule", x1: left, x2: width - right, y1: Y(v), y2: Y(v) }), svg("text", { class: "axis", x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, v.toFixed(y1 - y0 < 0.3 ? 2 : 1)));
  const ticks = log ? niceLog(x0, x1) : niceSteps(x0, x1, Math.max(2, Math.min(6, width / 90)));
  for (const v of ticks) out.push(svg("text", { class: "axis", x: X(v), y: height - bottom + 17, "text-anchor": "middle" }, brief(v)));
  out.push(svg("text", { class: "axis label", x: width - right, y: height - 6, "text-anchor": "end" }, `tokens an item${log ? ", logarithmic" : ""} →`));
  out.push(svg("text", { class: "axis label", x: left, y: top - 2, "text-anchor": "start" }, "↑ score"));
  const front = shown.filter(({ p }) => p.front).sort((a, b) => a.p.tokens - b.p.tokens);
  if (front.length > 1) out.push(svg("path", { class: "front", d: front.map(({ p }, i) => (i ? `H${X(p.tokens).toFixed(1)}V${Y(p.score).toFixed(1)}` : `M${X(p.tokens).toFixed(1)},${Y(p.score).toFixed(1)}`)).join("") }));
  // Names stand to the right of their points; one that would touch another moves up.
  const labels = shown.map(({ run, i, p }) => {
    const text = (run.name.length > 22 ? "…" + run.name.slice(-21) : run.name).replace(HIDDEN, "�"), x = X(p.tokens), wide = 6.6 * text.length;
    const end = x + wide > width - right;
    return { i, text, end, x: end ? x - 9 : x + 9, from: end ? x - 9 - wide : x + 9, to: end ? x - 9 : x + 9 + wide, y: Y(p.score) - 9 };
  }).sort((a, b) => b.y - a.y || b.to - a.to);
  labels.forEach((label, k) => {
    const before = labels.slice(0, k).sort((a, b) => b.y - a.y);
    for (const other of before) if (label.from < other.to + 6 && label.to > other.from - 6 && Math.abs(label.y - other.y) < 14) label.y = other.y - 14;
  });
  for (const { run, i, p } of shown) {
    const x = X(p.tokens), y = Y(p.score), spread = p.spread ?? 0;
    const mark = svg("g", { class: `point${p.front === false ? " beaten" : ""}`, vars: { "--colour": runColour(i) } },
      svg("line", { class: "whisker", x1: x, x2: x, y1: Y(p.low ?? p.score), y2: Y(p.high ?? p.score) }),
      svg("line", { class: "whisker", x1: X(p.tokens - spread), x2: X(p.tokens + spread), y1: y, y2: y }),
      svg("circle", { cx: x, cy: y, r: 5.5 }), svg("circle", { class: "hit", cx: x, cy: y, r: 16 }));
    const lines = () => [el("b", {}, name(run.name)), el("span", {}, `score ${score(p.score)} [${score(p.low)}, ${score(p.high)}]`), el("span", {}, `${count(p.tokens)} tokens an item${p.spread ? ` ± ${count(p.spread)}` : ""}`),
      el("span", {}, `${plural(p.rows, "row")}${p.shared ? " that all runs scored" : ""}`), p.probability !== null && el("span", {}, `on the front in ${percent(p.probability)} of resamples`)].filter(Boolean);
    mark.addEventListener("pointermove", (event) => tip.show(lines(), event.clientX, event.clientY));
    mark.addEventListener("pointerleave", () => tip.hide());
    out.push(mark);
  }
  for (const { i, text, end, x, y } of labels) out.push(svg("text", { class: "tag", x, y: Math.max(10, y), "text-anchor": end ? "end" : "start", vars: { "--colour": runColour(i) } }, text));
  const words = shown.map(({ run, p }) => `${run.name}: score ${score(p.score)}, ${count(p.tokens)} tokens an item`).join("; ");
  return svg("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Score against tokens. ${words}` }, out);
}

function niceLog(x0, x1) {
  const out = [];
  for (let e = Math.floor(x0); e <= x1; e++) for (const m of x1 - x0 > 2.5 ? [1] : [1, 3]) {
    const v = m * 10 ** e;
    if (Math.log10(v) >= x0 && Math.log10(v) <= x1) out.push(v);
  }
  return out;
}

/** A small line with the interval of a score, on a scale from 0 to 1. */
function interval(run, i) {
  if (run.score === null) return null;
  const X = (v) => 4 + 70 * v;
  return svg("svg", { class: "interval", width: 78, height: 14, "aria-hidden": "true", vars: { "--colour": runColour(i) } },
    svg("line", { class: "rail", x1: 4, x2: 74, y1: 7, y2: 7 }),
    run.score_low !== null && svg("line", { class: "span", x1: X(run.score_low), x2: X(run.score_high), y1: 7, y2: 7 }),
    svg("circle", { cx: X(run.score), cy: 7, r: 3.5 }));
}

function runsTable() {
  const first = facts.runs[0];
  const paired = facts.runs.some((r) => r.against);
  const priced = facts.runs.some((r) => r.cost !== null);
  const netted = facts.runs.some((r) => r.gross !== r.input + r.output);
  const broken = facts.runs.some((r) => r.failed);
  const head = ["Run", "Score", "", "Tokens an item", ...(netted ? ["Tokens of the team"] : []), "Calls", ...(priced ? ["Cost"] : []), ...(broken ? ["Failed"] : []), ...(paired ? ["Saved", "Against the first"] : [])];
  const rows = facts.runs.map((run, i) => {
    const a = run.against;
    const per = run.done ? (run.input + run.output) / run.done : null;
    return el("tr", { vars: { "--colour": runColour(i) } },
      el("th", { scope: "row" }, el("span", { class: "dot", "aria-hidden": "true" }), name(run.name),
        el("span", { class: "sub" }, name(run.graph), run.model ? [" · ", name(run.model)] : "", run.topology !== "whole graph" ? " · " + run.topology : "", run.samples > 1 ? ` · ${run.samples} samples` : "")),
      el("td", { class: "n strong" }, score(run.score), run.score_low !== null && el("span", { class: "sub" }, `${score(run.score_low)} – ${score(run.score_high)}`)),
      el("td", { class: "bare" }, interval(run, i)),
      el("td", { class: "n strong" }, count(per), el("span", { class: "sub" }, `${brief(run.input)} in · ${brief(run.output)} out`)),
      netted && el("td", { class: "n" }, brief(run.gross)),
      el("td", { class: "n" }, count(run.calls), (run.failed_calls || run.cache_hits) ? el("span", { class: "sub" }, [run.failed_calls && `${count(run.failed_calls)} failed`, run.cache_hits && `${count(run.cache_hits)} cached`].filter(Boolean).join(" · ")) : null),
      priced && el("td", { class: "n" }, money(run.cost)),
      broken && el("td", { class: run.failed ? "n bad" : "n" }, run.failed ? count(run.failed) : "0", el("span", { class: "sub" }, `of ${count(run.done)}`)),
      paired && el("td", { class: "n" }, a && a.saved !== null ? percent(a.saved) : ""),
      paired && el("td", { class: "wordy" }, a && a.mean !== null ? [el("span", { class: "strong" }, `${points(a.mean)} points`), a.low !== null && el("span", { class: "quiet" }, ` [${points(a.low)}, ${points(a.high)}]`), el("span", { class: "sub" }, verdict(a))] : ""));
  });
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs side by side" },
    el("table", { class: "runs" }, el("thead", {}, el("tr", {}, head.map((h, k) => el("th", { scope: "col", class: k === 0 || h === "Against the first" ? null : "n" }, h)))), el("tbody", {}, rows)));
}

/** What each agent's calls cost: for one run, where there is room for it. */
function agentsTable(run) {
  const most = Math.max(1, ...run.agents.map((a) => a.input + a.output));
  const shown = [...run.agents].sort((a, b) => b.input + b.output - a.input - a.output).slice(0, 8), rest = run.agents.length - shown.length;
  return el("div", { class: "panel flush" }, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Agents" }, el("table", { class: "runs" },
    el("thead", {}, el("tr", {}, ["Agent", "", "Calls", "Input", "Output"].map((h, i) => el("th", { scope: "col", class: i > 1 ? "n" : null }, h)))),
    el("tbody", {}, shown.map((a) => el("tr", {}, el("th", { scope: "row" }, name(a.name), a.decision && el("span", { class: "chip" }, "decides"), a.adversarial && el("span", { class: "chip warm" }, "misleads"), a.alive === 0 && el("span", { class: "chip" }, "pruned")),
      el("td", { class: "grown" }, el("span", { class: "track" }, el("span", { class: "bar", vars: { width: (100 * (a.input + a.output) / most).toFixed(1) + "%" } }))),
      el("td", { class: "n" }, a.function ? "–" : count(a.calls), a.failed_calls ? el("span", { class: "sub" }, `${count(a.failed_calls)} failed`) : null), el("td", { class: "n" }, brief(a.input)), el("td", { class: "n" }, brief(a.output))))))),
    rest > 0 && el("p", { class: "quiet more under" }, `and ${plural(rest, "more agent")}`));
}

function verdict(a) {
  const margin = `${(100 * a.margin).toFixed(0)} points`;
  if (a.verdict === "yes") return `not worse by ${margin}, 95 % sure`;
  if (a.verdict === "no") return `worse by more than ${margin}`;
  return `whether worse by ${margin}: about ${count(a.needed)} items would tell`;
}

const PART_NAMES = { system: ["system and roles", "the team's text and each agent's role"], task: ["task", "context, question, views"], messages: ["messages", "what agents read from each other"], memory: ["memory", "an agent's own earlier replies"], template: ["template", "what the chat template adds"], channels: ["channels' own calls", "models asked to compress a message"], unattributed: ["unattributed", "totals without parts"] };

/** Tokens by part as bars, every edge among them. `onedge(i)` hears which edge is looked at. */
function partBars(run, onedge) {
  const parts = Object.entries(PART_NAMES).map(([key, [label, note]]) => ({ key, label, note, tokens: run.parts[key] ?? 0 })).filter((p) => p.tokens || ["system", "task", "messages"].includes(p.key));
  const most = Math.max(1, run.output, ...parts.map((p) => p.tokens));
  const bar = (tokens, cls) => el("span", { class: "track" }, el("span", { class: "bar " + cls, vars: { width: (100 * tokens / most).toFixed(2) + "%" } }));
  const share = (tokens) => percent(run.input ? tokens / run.input : 0, 1);
  const edges = run.edges.map((edge, i) => ({ edge, i })).filter(({ edge }) => edge.tokens || edge.alive > 0).sort((a, b) => b.edge.tokens - a.edge.tokens);
  const kept = edges.slice(0, 250), rest = edges.slice(250);
  const worth = worthScale(run);
  const list = el("ul", { class: "edges", role: "listbox", "aria-label": "Edges by tokens" }, kept.map(({ edge, i }, k) => {
    const row = el("li", { class: "part edge-row", role: "option", tabindex: k ? -1 : 0, "aria-label": `${arrow(run, edge)}${edge.kind === "temporal" ? ", next round" : ""}: ${plural(edge.tokens, "token")}, ${share(edge.tokens)} of input, ${plural(edge.messages, "message")}, worth ${edge.worth === null ? "unknown" : edge.worth.toFixed(3)}` },
      el("span", { class: "part-name" }, name(arrow(run, edge)), edge.kind === "temporal" && el("span", { class: "quiet" }, " next round"), edge.channel && el("span", { class: "chip" }, name(edge.channel))),
      el("span", { class: "track" }, el("span", { class: "bar edge-bar", vars: { width: (100 * edge.tokens / most).toFixed(2) + "%", "--colour": worth.colour(edge) } })), el("span", { class: "n" }, brief(edge.tokens)), el("span", { class: "n quiet" }, share(edge.tokens)));
    const on = () => { onedge(i); tip.at(row, edgeLines(run, edge), true); };
    row.addEventListener("pointerenter", on);
    row.addEventListener("focus", on);
    for (const leave of ["pointerleave", "blur"]) row.addEventListener(leave, () => { onedge(null); tip.hide(); });
    return row;
  }));
  roving(list, () => [...list.children]);
  const row = (label, note, tokens, cls, s) => el("div", { class: "part", title: note }, el("span", { class: "part-name" }, label), bar(tokens, cls), el("span", { class: "n" }, brief(tokens)), el("span", { class: "n quiet" }, s));
  return el("div", { class: "parts" },
    el("div", { class: "parts-head" }, el("span", {}, "Input tokens by part"), el("span", { class: "n" }, brief(run.input)), el("span", { class: "n quiet" }, "share")),
    parts.map((p) => [row(p.label, p.note, p.tokens, "bar-" + p.key, share(p.tokens)), p.key === "messages" && kept.length ? [list, rest.length ? el("p", { class: "quiet more" }, `and ${plural(rest.length, "more edge")} with ${count(sum(rest.map((r) => r.edge.tokens)))} tokens`) : null] : null]),
    el("div", { class: "parts-head" }, el("span", {}, "Output tokens"), el("span", { class: "n" }, brief(run.output)), el("span", {})),
    row("replies", "what the models wrote", run.output, "bar-output", ""),
    run.estimated && el("p", { class: "quiet more" }, "Shares of some prompts are estimates by length: no tokenizer was at hand. Totals are the server's."),
    run.unknown_calls ? el("p", { class: "quiet more" }, `${plural(run.unknown_calls, "attempt")} of unknown size: totals are a lower bound.`) : null);
}
