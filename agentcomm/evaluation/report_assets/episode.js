// Episode: one row's conversation in one run, round by round: what every agent was given, what
// it said, what it cost, and what compression changed.

/** A text of the row: itself, or its beginning with a note where the rest is. */
function passage(texts, at, props = {}) {
  if (at === null || at === undefined) return el("p", { class: "quiet" }, "–");
  const value = texts[at], cut = Array.isArray(value), text = cut ? value[0] : value;
  if (!text) return el("p", { class: "quiet" }, "(empty)");
  const long = text.length > 2400;
  return [
    el("div", { class: "text" + (long ? " long" : "") + (props.class ? " " + props.class : ""), dir: "auto", ...(long ? { tabindex: 0, role: "region", "aria-label": props.label ?? "text" } : {}) }, marked(text)),
    cut && cutNote(value),
  ];
}
const cutNote = (value) => el("p", { class: "quiet cut-note" }, `The first ${count(value[0].length)} of ${count(value[1])} characters; the run's directory has them all (SHA-256 ${value[2].slice(0, 12)}…).`);
const raw = (texts, at) => (Array.isArray(texts[at]) ? texts[at][0] : texts[at]) ?? "";

/** Words of `a` and `b` with what was taken away and what was added; a long middle counts as one piece. */
function difference(a, b) {
  const A = a.match(/\s+|[^\s]+/g) ?? [], B = b.match(/\s+|[^\s]+/g) ?? [];
  let from = 0, end = 0;
  while (from < A.length && from < B.length && A[from] === B[from]) from++;
  while (end < A.length - from && end < B.length - from && A[A.length - 1 - end] === B[B.length - 1 - end]) end++;
  const X = A.slice(from, A.length - end), Y = B.slice(from, B.length - end);
  const left = [[0, A.slice(0, from)]], right = [[0, B.slice(0, from)]];
  const put = (list, kind, word) => { if (list.at(-1)[0] === kind) list.at(-1)[1].push(word); else list.push([kind, [word]]); };
  if (X.length * Y.length > 250_000 || !X.length || !Y.length) {
    if (X.length) left.push([1, X]);
    if (Y.length) right.push([1, Y]);
  } else {
    const L = Array.from({ length: X.length + 1 }, () => new Uint16Array(Y.length + 1));
    for (let i = X.length - 1; i >= 0; i--) for (let j = Y.length - 1; j >= 0; j--) L[i][j] = X[i] === Y[j] ? L[i + 1][j + 1] + 1 : Math.max(L[i + 1][j], L[i][j + 1]);
    let i = 0, j = 0;
    while (i < X.length || j < Y.length) {
      if (i < X.length && j < Y.length && X[i] === Y[j]) { put(left, 0, X[i++]); put(right, 0, Y[j++]); }
      else if (j >= Y.length || (i < X.length && L[i + 1][j] >= L[i][j + 1])) put(left, 1, X[i++]);
      else put(right, 1, Y[j++]);
    }
  }
  left.push([0, A.slice(A.length - end)]);
  right.push([0, B.slice(B.length - end)]);
  return [left, right];
}

function comparison(texts, given) {
  const [left, right] = difference(raw(texts, given.original), raw(texts, given.text));
  const side = (pieces, tag) => el("div", { class: "text", dir: "auto" }, pieces.filter((p) => p[1].length).map(([changed, words]) => (changed ? el(tag, {}, marked(words.join(""))) : marked(words.join("")))));
  const long = (at) => Array.isArray(texts[at]) && cutNote(texts[at]);
  const size = (at) => (Array.isArray(texts[at]) ? texts[at][1] : texts[at].length);
  return el("div", { class: "compare" },
    el("div", {}, el("h6", {}, "Said", el("span", { class: "quiet" }, ` ${count(size(given.original))} characters`)), side(left, "del"), long(given.original)),
    el("div", {}, el("h6", {}, "Delivered", el("span", { class: "quiet" }, ` ${count(size(given.text))} characters`)), side(right, "ins"), long(given.text)));
}

/** A stacked bar of what a call's input was spent on. */
function callBar(run, call) {
  if (!call.parts || !call.input) return null;
  const kinds = {};
  for (const [part, tokens] of Object.entries(call.parts)) { const k = part.includes("->") ? "messages" : part; kinds[k] = (kinds[k] ?? 0) + tokens; }
  const order = ["system", "task", "messages", "memory", "template"].filter((k) => kinds[k]);
  return el("div", { class: "stack", role: "img", "aria-label": order.map((k) => `${k} ${kinds[k]} tokens`).join(", "), title: order.map((k) => `${k} ${count(kinds[k])}`).join(" · ") },
    order.map((k) => el("span", { class: "bar-" + k, vars: { flex: `${kinds[k]} 0 0` } })));
}

function preview(text) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 120 ? line.slice(0, 119) + "…" : line;
}

function givenMessages(run, row, call, reader) {
  const given = call.given ?? [];
  const one = (g) => {
    const changed = g.original !== undefined;
    const text = raw(row.texts, g.text);
    const from = g.from === null || g.from === undefined ? "?" : run.agents[g.from].name;
    return el("details", { class: "message" + (changed ? " changed" : ""), open: changed },
      el("summary", {}, el("span", { class: "from" }, "from ", name(from)), g.temporal && el("span", { class: "chip" }, "last round"), g.again && el("span", { class: "chip" }, "read again"),
        changed ? el("span", { class: "chip warm" }, name(g.channel ?? "changed")) : g.channel && el("span", { class: "chip" }, name(g.channel)),
        el("span", { class: "preview" }, changed ? name(g.note ?? "") : name(preview(text))), el("span", { class: "n" }, g.tokens === null || g.tokens === undefined ? "? tokens" : plural(g.tokens, "token"))),
      changed ? comparison(row.texts, g) : [g.note && el("p", { class: "quiet" }, name(g.note)), passage(row.texts, g.text, { label: "message from " + from })]);
  };
  return given.map(one);
}

function turnCard(run, row, turn) {
  const agent = turn.agent === null || turn.agent === undefined ? null : run.agents[turn.agent];
  const title = (extra) => el("header", {}, el("h5", {}, agent ? name(agent.name) : "an agent that left the graph"), agent?.decision && el("span", { class: "chip" }, "decides"), agent?.adversarial && el("span", { class: "chip warm" }, "misleads"), extra);
  if (!turn.calls) return el("article", { class: "turn" }, title(el("span", { class: "quiet" }, "a function; no model call")), el("div", { class: "said" }, passage(row.texts, turn.said, { label: "what it said" })));
  const own = turn.calls.filter((c) => !c.edge), channels = turn.calls.filter((c) => c.edge);
  const good = own.filter((c) => !c.error), call = good.at(-1) ?? own.at(-1);
  if (!call) return el("article", { class: "turn" }, title(), channels.map((c) => attempt(run, row, c)));
  const others = own.filter((c) => c !== call);
  const meta = el("span", { class: "meta" },
    el("span", { title: "input tokens" }, call.input === undefined ? "? in" : `${count(call.input)} in`), el("span", { title: "output tokens" }, call.output === undefined ? "? out" : `${count(call.output)} out`),
    call.cached ? el("span", { title: "input tokens read from a prefix cache" }, `${count(call.cached)} cached`) : null, call.reasoning ? el("span", {}, `${count(call.reasoning)} reasoning`) : null,
    call.seconds !== undefined && el("span", {}, seconds(call.seconds)), call.cost ? el("span", {}, money(call.cost)) : null,
    call.hit && el("span", { class: "chip" }, "from a cache: not paid"), call.finish === "length" && el("span", { class: "chip warm", title: "the reply was cut off at max_tokens" }, "cut at its limit"),
    call.estimated && el("span", { class: "quiet", title: "shares by length: no tokenizer was at hand" }, "≈"));
  const part = (k) => (call.parts && call.parts[k] !== undefined ? plural(call.parts[k], "token") : "");
  const views = agent?.view === "*" ? Object.values(row.views ?? {}) : agent?.view && row.views ? [row.views[agent.view]].filter((v) => v !== undefined) : [];
  const fixed = el("details", { class: "message fixed" },
    el("summary", {}, el("span", { class: "from" }, "system, task, role"), el("span", { class: "preview" }, agent?.role ? name(preview(agent.role)) : "no role"), el("span", { class: "n" }, call.parts ? plural((call.parts.system ?? 0) + (call.parts.task ?? 0), "token") : "")),
    run.system && [el("h6", {}, "System, shared by the team", el("span", { class: "quiet" }, part("system") && ` ${part("system")} with the role`)), el("div", { class: "text", dir: "auto" }, marked(run.system))],
    el("h6", {}, "Task", el("span", { class: "quiet" }, part("task") && ` ${part("task")} with the view`)),
    row.question === undefined ? el("p", { class: "quiet" }, "The run's directory doesn't say what was asked.") : [row.context !== undefined && row.context !== null && passage(row.texts, row.context, { label: "context" }), passage(row.texts, row.question, { label: "question" })],
    agent?.role && [el("h6", {}, "Role"), el("div", { class: "text", dir: "auto" }, marked(agent.role))],
    views.length > 0 && [el("h6", {}, `View: ${agent.view === "*" ? "all" : agent.view}`), views.map((v) => passage(row.texts, v, { label: "view" }))]);
  const extra = call.parts && (call.parts.memory || call.parts.template) ? el("p", { class: "quiet extra" }, [call.parts.memory && `its own earlier replies: ${plural(call.parts.memory, "token")}`, call.parts.template && `chat template: ${plural(call.parts.template, "token")}`].filter(Boolean).join(" · ")) : null;
  return el("article", { class: "turn" + (call.error ? " broken" : "") },
    title(meta), callBar(run, call),
    el("div", { class: "given" }, fixed, givenMessages(run, row, call, agent), extra),
    channels.length > 0 && el("details", { class: "message" }, el("summary", {}, el("span", { class: "from" }, plural(channels.length, "call") + " of channels"), el("span", { class: "n" }, plural(sum(channels.map((c) => (c.input ?? 0) + (c.output ?? 0))), "token"))), channels.map((c) => attempt(run, row, c))),
    others.length > 0 && el("details", { class: "message retries", open: others.some((c) => c.error) }, el("summary", {}, el("span", { class: "from" }, plural(others.length, "earlier attempt"))), others.map((c) => attempt(run, row, c))),
    call.error ? failure(call) : el("div", { class: "said" }, passage(row.texts, call.reply, { label: "what it said" })));
}

const failure = (call) => el("p", { class: "failure" }, el("b", {}, name(call.error)), call.why ? [" ", name(call.why)] : call.error === "pending" ? " sent, and its end was never recorded: what it cost is unknown" : "");
const attempt = (run, row, c) => el("div", { class: "attempt" }, c.edge && el("span", { class: "chip" }, name(c.edge)), el("span", { class: "quiet" }, `${c.input === undefined ? "?" : count(c.input)} in, ${c.output === undefined ? "?" : count(c.output)} out, ${seconds(c.seconds)}`), c.error ? failure(c) : passage(row.texts, c.reply));

/** The sheet that shows a row; `table` and `list` (the rows as filtered) let it walk on. */
function episodeSheet(table) {
  const sheet = el("dialog", { class: "sheet", "aria-labelledby": "sheet-title" });
  document.body.append(sheet);
  const now = { row: -1, run: 0, list: null, back: null };
  sheet.addEventListener("close", () => {
    if (location.hash.includes("/")) history.replaceState(null, "", location.pathname + location.search);
    sheet.replaceChildren();
    now.row = -1;
    now.back?.();
  });
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  sheet.addEventListener("keydown", (event) => {
    if (/INPUT|SELECT/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") walk(1);
    else if (event.key === "k") walk(-1);
    else if (event.key === "e") { const all = [...sheet.querySelectorAll("details")], open = all.some((d) => !d.open); for (const d of all) d.open = open; }
  });
  function walk(step) {
    const list = now.list ?? [], to = list[list.indexOf(now.row) + step];
    if (to === undefined) return;
    const run = table.runs[now.run].state[to] !== ABSENT ? now.run : table.runs.findIndex((r) => r.state[to] !== ABSENT);
    history.replaceState(null, "", addressOf(table, to, run));
    show(to, run);
  }
  function close() { if (sheet.open) sheet.close(); }

  async function show(row, run, list, back) {
    if (list) now.list = list;
    if (back) now.back = back;
    const moved = now.row !== row;
    [now.row, now.run] = [row, run];
    let data;
    try { data = await conversation(table, row); } catch (error) { data = { broken: String(error) }; }
    if (now.row !== row || now.run !== run) return;
    const at = now.list ? now.list.indexOf(row) : -1;
    const step = (label, by, key) => el("button", { type: "button", class: "icon", "aria-label": label, title: `${label} (${key})`, disabled: !now.list || now.list[at + by] === undefined || at < 0, onclick: () => walk(by) }, by < 0 ? "↑" : "↓");
    const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Runs" }, facts.runs.map((r, k) => {
      const t = table.runs[k];
      if (t.state[row] === ABSENT) return null;
      const s = t.score[row], mark = t.state[row] === FAILED ? "failed" : t.state[row] === NOT_RUN ? "not run" : s === null ? "" : s >= 0.999 ? "✓" : s <= 0.001 ? "✗" : s.toFixed(2);
      return el("button", { type: "button", role: "tab", id: "tab-" + k, "aria-controls": "talk", "aria-selected": String(k === run), tabindex: k === run ? 0 : -1, vars: { "--colour": runColour(k) }, onclick: () => { history.replaceState(null, "", addressOf(table, row, k)); show(row, k).then(() => document.getElementById("tab-" + k)?.focus()); } },
        el("span", { class: "dot", "aria-hidden": "true" }), name(r.name), el("span", { class: "verdict " + (t.state[row] !== OK ? "" : s >= 0.999 ? "right" : s <= 0.001 ? "wrong" : "part") }, mark), el("span", { class: "quiet n" }, brief(t.tokens[row])));
    }));
    roving(tabs, () => [...tabs.children]);
    const head = el("header", { class: "sheet-head" },
      el("div", { class: "sheet-bar" }, el("h3", { id: "sheet-title", tabindex: -1 }, name(table.item[row]), table.sample[row] ? ` · sample ${table.sample[row] + 1}` : ""), el("span", { class: "quiet" }, at >= 0 ? `${count(at + 1)} of ${count(now.list.length)}` : ""),
        el("span", { class: "grow" }), el("button", { type: "button", class: "icon wide", title: "open or close all (e)", onclick: () => { const all = [...sheet.querySelectorAll("details")], open = all.some((d) => !d.open); for (const d of all) d.open = open; } }, "Expand all"), step("Previous item", -1, "k"), step("Next item", 1, "j"), el("button", { type: "button", class: "icon", "aria-label": "Close", title: "Close (Esc)", onclick: close }, "✕")),
      tabs);
    sheet.replaceChildren(head, el("div", { class: "talk", id: "talk", role: "tabpanel", "aria-labelledby": "tab-" + run, tabindex: 0 }, talk(data, row, run)));
    if (!sheet.open) sheet.showModal();
    if (moved) { sheet.scrollTop = 0; document.getElementById("sheet-title").focus(); }
  }

  function talk(data, row, k) {
    const run = facts.runs[k], t = table.runs[k];
    if (data?.broken) return el("p", { class: "failure" }, "This conversation can't be opened: ", data.broken);
    if (!data) return el("div", { class: "ask" }, el("p", {}, name(table.question[row])), el("p", { class: "quiet" }, `${count(t.tokens[row])} tokens in ${plural(t.calls[row], "call")}. This conversation isn't in the file: there was no room for all of ${plural(facts.rows, "row")}. agentcomm view ${run.path} --size 100 takes in more; the run's directory has everything.`));
    const e = data.runs[k];
    const ask = el("section", { class: "ask", "aria-label": "Task" },
      data.question === undefined ? el("p", { class: "quiet" }, "The run's directory doesn't say what was asked (it was made before agentcomm kept it).") : el("div", { class: "question" }, passage(data.texts, data.question, { label: "question" })),
      data.context !== undefined && data.context !== null && el("details", { class: "message" }, el("summary", {}, el("span", { class: "from" }, "context"), el("span", { class: "preview" }, name(preview(raw(data.texts, data.context))))), passage(data.texts, data.context, { label: "context" })),
      Object.entries(data.views ?? {}).map(([view, at]) => el("details", { class: "message" }, el("summary", {}, el("span", { class: "from" }, "view ", name(view)), el("span", { class: "preview" }, name(preview(raw(data.texts, at))))), passage(data.texts, at, { label: "view " + view }))),
      el("dl", { class: "outcome" },
        data.answer !== undefined && data.answer !== null && [el("dt", {}, "Reference"), el("dd", {}, passage(data.texts, data.answer, { label: "reference" }))],
        e?.extracted !== undefined && e?.extracted !== null && [el("dt", {}, "Read as"), el("dd", {}, passage(data.texts, e.extracted))],
        [el("dt", {}, "Score"), el("dd", {}, t.state[row] === FAILED ? el("span", { class: "chip failed" }, "failed") : t.state[row] === OK ? score(t.score[row]) : "not run")],
        [el("dt", {}, "Paid"), el("dd", {}, `${count(t.input[row])} in, ${count(t.output[row])} out, ${plural(t.calls[row], "call")}${t.wall[row] ? `, ${seconds(t.wall[row])}` : ""}${t.unknown[row] ? `; ${plural(t.unknown[row], "attempt")} of unknown size` : ""}`)]));
    if (!e) return [ask, el("p", { class: "quiet pad" }, "Nothing was asked in this run yet.")];
    const failed = [e.failure, ...(e.earlier ?? [])].filter(Boolean);
    const trouble = failed.length > 0 && el("div", { class: "trouble" }, e.failure && el("p", { class: "failure" }, el("b", {}, "failed"), " ", name(e.failure)), (e.earlier ?? []).map((f) => el("p", { class: "failure quiet" }, "an earlier try: ", name(f))));
    const cut = e.cut?.length ? el("p", { class: "quiet" }, "Cut for this item: ", e.cut.map((i, n) => [n ? ", " : "", name(arrow(run, run.edges[i]))])) : null;
    const rounds = [...new Set(e.turns.map((turn) => turn.round))];
    return [ask, trouble, cut, rounds.map((r) => {
      const turns = e.turns.filter((turn) => turn.round === r);
      const used = sum(turns.flatMap((turn) => (turn.calls ?? []).filter((c) => !c.hit).map((c) => (c.input ?? 0) + (c.output ?? 0))));
      return el("section", { class: "round" }, el("h4", {}, run.rounds > 1 ? `Round ${r}` : "Conversation", el("span", { class: "quiet" }, ` ${plural(turns.length, "turn")}, ${count(used)} tokens`)), turns.map((turn) => turnCard(run, data, turn)));
    }), !e.turns.length && el("p", { class: "quiet pad" }, "No agent spoke.")];
  }
  return { show, close, sheet };
}
