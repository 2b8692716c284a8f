// Tools: making elements, writing numbers, showing text that nobody can trust.
// Everything becomes visible through textContent; nothing here parses a string as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "vars") for (const [n, v] of Object.entries(value)) node.style.setProperty(n, v);
    else if (key === "class") node.setAttribute("class", value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** An HTML element; `vars` are CSS properties, `on…` are listeners. */
const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
/** An SVG element. */
const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** A name from the data: its writing direction stays inside it. */
const name = (text, props) => el("bdi", props, marked(text));

// Characters that are invisible or turn the direction of what follows are shown as their numbers.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Text as nodes: itself, with a small mark where a character could mislead. */
function marked(text) {
  const out = [];
  let from = 0;
  for (const hit of String(text).matchAll(HIDDEN)) {
    if (hit.index > from) out.push(text.slice(from, hit.index));
    const code = hit[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    out.push(el("span", { class: "hidden-char", title: "an invisible character" }, "U+" + code));
    from = hit.index + hit[0].length;
  }
  if (from < text.length) out.push(text.slice(from));
  return out;
}

const plain = new Intl.NumberFormat("en");
/** A whole number; unknown is a dash, never 0. */
const count = (n) => (n === null || n === undefined ? "–" : plain.format(Math.round(n)));
/** A number in few characters: 12,345 as 12.3k. */
function brief(n) {
  if (n === null || n === undefined) return "–";
  const a = Math.abs(n);
  if (a >= 1e9) return (n / 1e9).toFixed(1) + "G";
  if (a >= 1e6) return (n / 1e6).toFixed(a >= 1e7 ? 0 : 1) + "M";
  if (a >= 1e4) return (n / 1e3).toFixed(a >= 1e5 ? 0 : 1) + "k";
  return count(n);
}
const percent = (x, digits = 0) => (x === null || x === undefined ? "–" : (100 * x).toFixed(digits).replace("-", "−") + " %");
const score = (x) => (x === null || x === undefined ? "–" : x.toFixed(2));
const points = (x) => (x > 0 ? "+" : x < 0 ? "−" : "±") + Math.abs(100 * x).toFixed(1);
const seconds = (s) => (s === null || s === undefined ? "–" : s < 10 ? s.toFixed(1) + " s" : s < 120 ? Math.round(s) + " s" : Math.round(s / 60) + " min");
const money = (x) => (x === null || x === undefined ? "–" : x === 0 ? "$0" : x < 0.01 ? "$" + x.toPrecision(2) : "$" + x.toFixed(2));
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
const arrow = (run, edge) => `${run.agents[edge.sender].name} → ${run.agents[edge.reader].name}`;
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** Redraw `draw(width)` whenever the width of `node` changes. */
function fitted(node, draw) {
  let last = 0;
  const again = () => {
    const width = Math.floor(node.clientWidth);
    if (width && width !== last) node.replaceChildren(draw((last = width)));
  };
  new ResizeObserver(() => requestAnimationFrame(again)).observe(node);
  return { redraw() { last = 0; again(); } };
}

/** Arrow keys move among `items()`; one of them is in the tab order. */
function roving(box, items, onfocus) {
  box.addEventListener("keydown", (event) => {
    const all = items(), at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = all[Math.max(0, Math.min(all.length - 1, to))];
    all[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  if (onfocus) box.addEventListener("focusin", (event) => onfocus(event.target));
}

const tip = {
  node: document.getElementById("tip"),
  show(lines, x, y) {
    this.node.replaceChildren(...lines);
    this.node.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = this.node;
    this.node.style.left = Math.max(8, Math.min(innerWidth - w - 8, x + 14)) + "px";
    this.node.style.top = Math.max(8, y + h + 24 > innerHeight ? y - h - 12 : y + 16) + "px";
  },
  /** Beside an element that has the focus; to its left, where there is room, if it is one of a list. */
  at(node, lines, left = false) {
    const box = node.getBoundingClientRect();
    this.show(lines, box.left + Math.min(box.width / 2, 160), box.top + box.height / 2);
    const w = this.node.offsetWidth;
    if (!left || box.left < w + 20) return;
    this.node.style.left = box.left - w - 12 + "px";
    this.node.style.top = Math.max(8, box.top - 8) + "px";
  },
  hide() { this.node.hidden = true; },
};
