// Graph: who reads whom. An edge is as wide as the tokens its readers paid, or, where the topology is
// chosen for each item, as the share of items in which it was alive; it is coloured by its worth.

const CHOSEN = "chosen for each item";

/** Where each agent stands, in the unit square: waves from left to right, or a ring if edges skip waves. */
function places(run) {
  const n = run.agents.length;
  if (n === 1) return { kind: "row", at: [[0.5, 0.5]] };
  const spatial = run.edges.filter((e) => e.kind === "spatial" && !run.agents[e.reader].decision);
  const skip = spatial.filter((e) => run.agents[e.reader].level - run.agents[e.sender].level > 1).length;
  const levels = Math.max(...run.agents.map((a) => a.level)) + 1;
  const waves = Array.from({ length: levels }, (_, l) => run.agents.flatMap((a, i) => (a.level === l ? [i] : [])));
  const widest = Math.max(...waves.map((w) => w.length));
  const at = new Array(n);
  const beside = run.edges.filter((e) => e.sender !== e.reader && run.agents[e.sender].level === run.agents[e.reader].level).length;
  if (beside <= run.edges.length / 3 && levels <= 9 && widest <= 14 && skip <= spatial.length / 4) {
    waves.forEach((wave, l) => wave.forEach((agent, i) => {
      // A wave of one is set a little off the line, so that edges to later waves don't hide behind it.
      const shift = wave.length === 1 && levels > 3 && l > 0 && l < levels - 1 ? (l % 2 ? -0.16 : 0.16) : 0;
      at[agent] = [levels > 1 ? l / (levels - 1) : 0.5, (i + 1) / (wave.length + 1) * 1.2 - 0.1 + shift];
    }));
    return { kind: "waves", at };
  }
  const pool = run.agents.flatMap((a, i) => (a.decision ? [] : [i])).sort((a, b) => run.agents[a].level - run.agents[b].level || a - b);
  pool.forEach((agent, i) => {
    const angle = Math.PI * (0.75 + 1.5 * (i / Math.max(1, pool.length - 1)));
    at[agent] = [0.5 + 0.5 * Math.cos(angle), 0.5 + 0.5 * Math.sin(angle)];
  });
  at[run.agents.findIndex((a) => a.decision)] = [0.5, 1];
  return { kind: "ring", at };
}

function worthScale(run) {
  const known = run.edges.filter((e) => e.worth !== null);
  const most = Math.max(...known.map((e) => Math.abs(e.worth)), 0);
  return {
    known: known.length,
    most,
    colour(edge) {
      if (edge.worth === null) return "var(--edge)";
      const t = most ? Math.round(100 * Math.sqrt(Math.abs(edge.worth) / most)) : 0;
      return `color-mix(in oklab, var(${edge.worth < 0 ? "--worth-minus" : "--worth-plus"}) ${t}%, var(--worth-zero))`;
    },
  };
}

function edgeLines(run, edge) {
  const lines = [el("b", {}, name(arrow(run, edge)))];
  if (edge.alive === 0) lines.push(el("span", {}, "cut: nothing was read"));
  else {
    lines.push(el("span", {}, `${plural(edge.tokens, "token")} paid by the reader, ${percent(run.input ? edge.tokens / run.input : 0, 1)} of all input`));
    lines.push(el("span", {}, `${plural(edge.messages, "message")}` + (edge.again ? `; ${count(edge.again)} tokens for reading again` : "")));
    if (edge.alive < 1) lines.push(el("span", {}, `alive in ${percent(edge.alive)} of the episodes`));
  }
  if (edge.channel) lines.push(el("span", {}, "channel: ", name(edge.channel), edge.channel_tokens ? `, whose own calls took ${count(edge.channel_tokens)} tokens` : ""));
  if (edge.channel_did) lines.push(el("span", {}, name(edge.channel_did)));
  if (edge.kind === "temporal") lines.push(el("span", {}, "read in the next round"));
  if (edge.added) lines.push(el("span", {}, "added by the policy: the graph as written doesn't have it"));
  const spread = edge.worth_low !== null && edge.worth_high !== null ? ` [${edge.worth_low.toFixed(3)}, ${edge.worth_high.toFixed(3)}]` : "";
  lines.push(el("span", {}, edge.worth === null ? "worth unknown" : `worth ${edge.worth > 0 ? "+" : ""}${edge.worth.toFixed(3)}${spread}`));
  return lines;
}

function agentLines(run, agent) {
  const lines = [el("b", {}, name(agent.name), agent.decision ? " · decides" : "", agent.adversarial ? " · told to mislead" : "")];
  if (agent.alive === 0) lines.push(el("span", {}, "pruned: made no call"));
  else if (agent.function) lines.push(el("span", {}, "a function: makes no call"));
  else lines.push(el("span", {}, `${plural(agent.calls, "call")}: ${count(agent.input)} tokens in, ${count(agent.output)} out`));
  if (agent.failed_calls) lines.push(el("span", {}, `${plural(agent.failed_calls, "failed attempt")}`));
  if (agent.alive > 0 && agent.alive < 1) lines.push(el("span", {}, `alive in ${percent(agent.alive)} of the episodes`));
  if (agent.role) lines.push(el("span", { class: "quiet" }, name(agent.role.length > 140 ? agent.role.slice(0, 139) + "…" : agent.role)));
  return lines;
}

/** A bend near `wanted` with which the edge passes by other agents instead of through them. */
function clear(xy, edge, wanted, length, room) {
  const [x1, y1] = xy[edge.sender], [x2, y2] = xy[edge.reader];
  const others = xy.filter((_, i) => i !== edge.sender && i !== edge.reader);
  const gap = (bend) => {
    const mx = (x1 + x2) / 2 - (y2 - y1) / length * bend, my = (y1 + y2) / 2 + (x2 - x1) / length * bend;
    let least = Infinity;
    for (let t = 0.08; t < 0.95; t += 0.06) {
      const x = (1 - t) ** 2 * x1 + 2 * t * (1 - t) * mx + t * t * x2, y = (1 - t) ** 2 * y1 + 2 * t * (1 - t) * my + t * t * y2;
      for (const [ox, oy] of others) least = Math.min(least, Math.hypot(x - ox, y - oy));
    }
    return least;
  };
  const tried = [wanted];
  for (let k = 1; k <= 7; k++) tried.push(wanted + k * length * 0.07, wanted ? wanted + k * length * 0.1 : -k * length * 0.07);
  return tried.find((bend) => gap(bend) >= room) ?? tried.reduce((a, b) => (gap(b) > gap(a) ? b : a));
}

/** The picture of one run. `hot(edge)` from outside lights one edge up. */
function drawGraph(run, width) {
  const many = run.agents.length > 14;
  const { kind, at } = places(run);
  const tallest = Math.max(...Object.values(Object.groupBy ? Object.groupBy(run.agents, (a) => a.level) : { 0: run.agents }).map((w) => w.length));
  const height = kind === "waves" ? Math.max(260, Math.min(560, 120 + 62 * tallest + (run.agents.length > 3 ? 60 : 0))) : Math.min(680, Math.max(320, width * 0.86));
  const margin = many ? (kind === "ring" ? 84 : 40) : 64;
  const side = kind === "ring" ? Math.min(width - 2 * margin, height - 2 * margin + (many ? 30 : 20)) : null;
  const xy = at.map(([x, y]) => side
    ? [width / 2 + (x - 0.5) * side, height / 2 + (y - 0.5) * side]
    : [margin + x * (width - 2 * margin), margin / 2 + y * (height - margin)]);
  const radius = many ? 7 : 13;
  const most = Math.max(1, ...run.edges.map((e) => e.tokens)), byShare = run.topology === CHOSEN;
  // Many edges are drawn thinner and fainter, or nothing could be told apart.
  const drawn = run.edges.length, widest = many ? Math.max(1.2, 7 * Math.min(1, Math.sqrt(120 / drawn))) : 15;
  const faint = many ? Math.max(0.06, Math.min(0.55, 4 / Math.sqrt(drawn))) : 0.82;
  const worth = worthScale(run);
  const parts = [];
  const order = run.edges.map((_, i) => i).sort((a, b) => (run.edges[a].alive > 0) - (run.edges[b].alive > 0) || run.edges[b].tokens - run.edges[a].tokens);
  const bundles = new Map();
  for (const i of order) {
    const edge = run.edges[i], cut = edge.alive === 0;
    const [x1, y1] = xy[edge.sender], [x2, y2] = xy[edge.reader];
    const thick = cut ? 1 : Math.max(0.8, widest * (byShare ? edge.alive : edge.tokens / most));
    const head = cut || drawn > 600 ? 0 : (many ? 3.5 : 6) + thick * 0.75;
    let path, tipAt, from;
    if (edge.sender === edge.reader) {
      path = `M${x1 - 6},${y1 - radius} c-16,-30 28,-30 12,0`;
    } else {
      const length = Math.hypot(x2 - x1, y2 - y1) || 1, ux = (x2 - x1) / length, uy = (y2 - y1) / length;
      let bend = kind === "ring" ? length * (edge.kind === "temporal" ? 0.2 : 0.08) : edge.kind === "temporal" || edge.added ? Math.max(34, length * 0.2) : 0;
      if (kind === "waves" && !many) bend = clear(xy, edge, bend, length, radius + 6 + thick / 2);
      const mx = (x1 + x2) / 2 - uy * bend, my = (y1 + y2) / 2 + ux * bend;
      // The line leaves and arrives along the curve, not along the chord.
      const a = Math.hypot(mx - x1, my - y1) || 1, b = Math.hypot(x2 - mx, y2 - my) || 1;
      const sx = x1 + (mx - x1) / a * (radius + 2), sy = y1 + (my - y1) / a * (radius + 2);
      const dx = (x2 - mx) / b, dy = (y2 - my) / b, gap = radius + 3;
      tipAt = [x2 - dx * gap, y2 - dy * gap];
      const ex = tipAt[0] - dx * head, ey = tipAt[1] - dy * head;
      path = `M${sx.toFixed(1)},${sy.toFixed(1)} Q${mx.toFixed(1)},${my.toFixed(1)} ${ex.toFixed(1)},${ey.toFixed(1)}`;
      from = [dx, dy, ex, ey];
    }
    const colour = cut ? null : worth.colour(edge);
    const group = svg("g", { class: `edge ${edge.kind}${cut ? " cut" : ""}`, "data-edge": i, vars: colour ? { "--colour": colour } : {} },
      svg("path", { class: "line", d: path, "stroke-width": thick.toFixed(2), "stroke-dasharray": edge.kind === "temporal" && !cut ? `${Math.max(many ? 3 : 5, thick * 1.4).toFixed(1)} ${Math.max(many ? 3 : 4, thick * 0.9).toFixed(1)}` : null }));
    if (head && from) {
      const [dx, dy, ex, ey] = from, half = head * 0.62;
      group.append(svg("polygon", { class: "head", points: `${tipAt[0].toFixed(1)},${tipAt[1].toFixed(1)} ${(ex - dy * half).toFixed(1)},${(ey + dx * half).toFixed(1)} ${(ex + dy * half).toFixed(1)},${(ey - dx * half).toFixed(1)}` }));
    }
    group.append(svg("path", { class: "hit", d: path, "stroke-width": Math.max(many ? 5 : 14, thick + 4) }));
    group.addEventListener("pointermove", (event) => { light(i); tip.show(edgeLines(run, edge), event.clientX, event.clientY); });
    group.addEventListener("pointerleave", () => { light(null); tip.hide(); });
    parts.push(group);
    bundles.set(i, group);
  }
  const nodes = run.agents.map((agent, i) => {
    const [x, y] = xy[i];
    const dead = agent.alive === 0;
    const shown = agent.name.length > (many ? 12 : 18) ? agent.name.slice(0, many ? 11 : 17) + "…" : agent.name;
    // On a ring names stand outside it; in waves below their node.
    const out = kind === "ring" ? [x - width / 2, y - height / 2] : null;
    const far = out ? Math.hypot(...out) || 1 : 1;
    const lx = out ? x + out[0] / far * (radius + 7) : x, ly = out ? y + out[1] / far * (radius + 9) + 4 : y + radius + 15;
    const anchor = out ? (out[0] / far > 0.35 ? "start" : out[0] / far < -0.35 ? "end" : "middle") : "middle";
    // Where names would touch on the ring they stand like spokes.
    const spoke = out && run.agents.length > 24 && !agent.decision ? Math.atan2(out[1], out[0]) * 180 / Math.PI : null;
    const turned = spoke !== null && Math.abs(spoke) > 90;
    const label = spoke === null
      ? { x: lx.toFixed(1), y: ly.toFixed(1), "text-anchor": anchor }
      : { transform: `translate(${x.toFixed(1)},${y.toFixed(1)}) rotate(${(turned ? spoke + 180 : spoke).toFixed(1)})`, x: (turned ? -1 : 1) * (radius + 7), y: 3.5, "text-anchor": turned ? "end" : "start" };
    const node = svg("g", { class: `node${agent.decision ? " decision" : ""}${dead ? " dead" : ""}${agent.function ? " function" : ""}${agent.adversarial ? " adversary" : ""}`, tabindex: i ? -1 : 0, role: "button",
      "aria-label": `${agent.name}${agent.decision ? ", decides" : ""}${agent.adversarial ? ", told to mislead" : ""}: ${dead ? "pruned" : `${plural(agent.calls, "call")}, ${count(agent.input)} tokens in, ${count(agent.output)} out`}` },
      svg(agent.function ? "rect" : "circle", agent.function ? { x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius, rx: 3 } : { cx: x, cy: y, r: radius }),
      agent.decision && svg("circle", { class: "ring", cx: x, cy: y, r: radius + 4 }),
      svg("text", label, shown.replace(HIDDEN, "�")));
    const on = () => around(i);
    node.addEventListener("pointerenter", (event) => { on(); tip.show(agentLines(run, agent), event.clientX, event.clientY); });
    node.addEventListener("focus", () => { on(); tip.at(node, agentLines(run, agent)); });
    for (const leave of ["pointerleave", "blur"]) node.addEventListener(leave, () => { light(null); tip.hide(); });
    return node;
  });
  const picture = svg("svg", { class: `graph${many ? " many" : ""}`, vars: { "--faint": faint }, width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `The team of ${run.name}: ${plural(run.agents.length, "agent")}, ${plural(run.edges.length, "edge")}. Arrow keys walk over the agents; the list beside has every edge.` }, parts, nodes);
  roving(picture, () => nodes);
  function light(index) {
    picture.classList.toggle("dimmed", index !== null);
    for (const [i, group] of bundles) group.classList.toggle("hot", i === index);
    for (const node of nodes) node.classList.remove("hot");
    if (index !== null) for (const end of [run.edges[index].sender, run.edges[index].reader]) nodes[end].classList.add("hot");
  }
  function around(agent) {
    picture.classList.add("dimmed");
    for (const [i, group] of bundles) group.classList.toggle("hot", run.edges[i].sender === agent || run.edges[i].reader === agent);
    nodes.forEach((node, i) => node.classList.toggle("hot", i === agent));
  }
  picture.light = light;
  return picture;
}

function graphLegend(run) {
  const worth = worthScale(run);
  const most = Math.max(0, ...run.edges.map((e) => e.tokens));
  const line = (cls, label) => el("span", { class: "key" }, svg("svg", { width: 30, height: 12, "aria-hidden": "true" }, svg("line", { class: cls, x1: 1, x2: 29, y1: 6, y2: 6 })), label);
  const kinds = new Set(run.edges.map((e) => e.kind));
  return el("div", { class: "legend" },
    run.edges.length > 0 && line("key-wide", run.topology === CHOSEN ? "alive on every item; thinner on fewer" : `${brief(most)} tokens`),
    kinds.has("spatial") && kinds.has("temporal") && line("key-spatial", "same round"),
    kinds.has("temporal") && line("key-temporal", "next round"),
    run.edges.some((e) => e.alive === 0) && line("key-cut", "cut"),
    worth.known
      ? el("span", { class: "key" }, el("span", { class: "ramp", "aria-hidden": "true" }), `−${worth.most.toFixed(2)} to +${worth.most.toFixed(2)}: `, name(run.worth_of), worth.known < run.edges.length ? "; neutral where unknown" : "")
      : run.edges.length > 0 && el("span", { class: "key" }, el("span", { class: "swatch", "aria-hidden": "true" }), "what edges are worth is unknown: neutral colour"));
}
