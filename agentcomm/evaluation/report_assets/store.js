// Store: what the file holds. Small facts are read at once, large pieces when they are needed.

const facts = JSON.parse(document.getElementById("facts").textContent);
const findings = JSON.parse(document.getElementById("findings").textContent);
const ABSENT = 0, NOT_RUN = 1, OK = 2, FAILED = 3;

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The table, column by column, with totals that filters and sorting need. */
async function openTable() {
  const [table, [chunk, index]] = await Promise.all([unpack("table"), unpack("where")]);
  const n = table.item.length;
  table.length = n;
  table.chunk = chunk;
  table.index = index;
  table.samples = table.sample.some((s) => s > 0);
  for (const run of table.runs) {
    run.tokens = run.input.map((t, i) => t + run.output[i]);
    run.most = run.tokens.reduce((a, b) => Math.max(a, b), 1);
  }
  table.most = Math.max(...table.runs.map((r) => r.most));
  table.cost = Array.from({ length: n }, (_, i) => Math.max(...table.runs.map((r) => r.tokens[i])));
  table.disagreed = Array.from({ length: n }, (_, i) => {
    const seen = new Set();
    for (const r of table.runs) if (r.state[i] === OK && r.score[i] !== null) seen.add(r.score[i]);
    return seen.size > 1;
  });
  table.searched = Array.from({ length: n }, (_, i) =>
    [table.item[i], table.question[i], ...table.runs.map((r) => r.extracted[i])].join("\n").toLowerCase());
  const byCost = Uint32Array.from(table.cost.keys()).sort((a, b) => table.cost[b] - table.cost[a]);
  table.dear = new Set(byCost.slice(0, Math.max(Math.min(10, n), Math.ceil(n / 100))));
  return table;
}

const opened = new Map();

/** A row's conversation, or null where it isn't in this file. */
async function conversation(table, row) {
  const chunk = table.chunk[row];
  if (chunk < 0) return null;
  if (!opened.has(chunk)) {
    if (opened.size > 8) opened.delete(opened.keys().next().value);
    opened.set(chunk, unpack("chunk-" + chunk));
  }
  return (await opened.get(chunk))[table.index[row]];
}

/** Halves of surrogate pairs would make encodeURIComponent throw. */
const escapeWord = (text) => encodeURIComponent(text.toWellFormed ? text.toWellFormed() : text);

/** The part of the address that opens a row in a run, and back. */
function addressOf(table, row, run) {
  const sample = table.sample[row] ? "/" + table.sample[row] : "";
  return `#${escapeWord(facts.runs[run].name)}/${escapeWord(table.item[row])}${sample}`;
}
function rowAt(table, hash) {
  const words = hash.replace(/^#/, "").split("/");
  if (words.length < 2) return null;
  let [runName, item, sample] = words;
  try { [runName, item] = [decodeURIComponent(runName), decodeURIComponent(item)]; } catch { return null; }
  const well = (t) => (t.toWellFormed ? t.toWellFormed() : t);
  const run = facts.runs.findIndex((r) => well(r.name) === runName);
  if (run < 0) return null;
  const row = table.item.findIndex((id, i) => table.sample[i] === Number(sample ?? 0) && well(id) === item && table.runs[run].state[i] !== ABSENT);
  return row < 0 ? null : { row, run };
}
