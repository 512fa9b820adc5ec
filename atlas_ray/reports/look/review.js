"use strict";

// The page one reviews products in. A decision is a product's id with a path. It is kept in this browser at once;
// `atlas-ray review --serve` writes it into the folder too, and without a server "Save" downloads it.

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const cards = [...document.querySelectorAll(".product")];
const products = new Map(data.products.map((product, place) => [product.id, { ...product, card: cards[place] }]));
const order = [...products.keys()];
const decisions = new Map();
const pending = new Map(); // what the server has not been told yet; null takes a decision back
const MOST = 60; // leaves that the picker lists
const SEPARATOR = " > ";
let now = 0;
let served = false;
let telling = false;
let stored = true; // whether this browser keeps what is decided
let saved = true; // whether a file holds all of it

// A leaf is written as how many names it shares with the one before, and the others.
const leaves = [];
for (const [shared, ...names] of data.leaves) leaves.push([...(leaves.at(-1) || []).slice(0, shared), ...names]);

const folded = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
const same = (one, other) => one.length === other.length && one.every((name, level) => name === other[level]);
const written = (path) => path.join(SEPARATOR);

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.textContent = text;
  return made;
}

const counted = (count) => `${count.toLocaleString()} correction${count === 1 ? "" : "s"}`;

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").className = wrong ? "wrong" : "soft";
}

// Keeping what is decided.

function keep() {
  try {
    localStorage.setItem(data.key, JSON.stringify([...decisions]));
    stored = true;
  } catch {
    stored = false;
  }
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(data.key) || "[]");
  } catch {
    stored = false;
    return [];
  }
}

const where = () => (stored ? "kept in this browser; Save makes the file" : "this browser keeps nothing: save before you close the page");

function decide(id, path) {
  if (path) decisions.set(id, path);
  else decisions.delete(id);
  pending.set(id, path);
  saved = false;
  keep();
  draw(id);
  if (served) tell();
  else say(`${counted(decisions.size)}, ${where()}.`, !stored);
}

async function tell() {
  if (telling) return;
  telling = true;
  try {
    while (pending.size) {
      const sent = [...pending];
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ changes: sent }) };
      const answer = await fetch("corrections", options);
      const body = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(body.detail || `the server answered ${answer.status}`);
      for (const [id, path] of sent) if (pending.get(id) === path) pending.delete(id);
      saved = pending.size === 0;
      say(`${counted(body.saved)} saved in ${body.file}.`);
    }
  } catch (error) {
    say(`Not saved in the folder (${error.message}); ${stored ? "kept in this browser, and tried again with the next one or with Save" : "press Save to try again before you close the page"}.`, true);
  } finally {
    telling = false;
  }
}

// A cell that a spreadsheet would compute, or that begins with a quote, gets one more quote, which `relabel` takes away.
const guarded = (text) => (/^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20']/.test(text) ? `'${text}` : text);
const cell = (text) => `"${guarded(text).replaceAll('"', '""')}"`;

function csv() {
  const rows = [...decisions].map(([id, path]) => [id, written(path)].map(cell).join(","));
  return ["\ufeffproduct_id,corrected_category_path", ...rows, ""].join("\r\n");
}

function save() {
  if (served) {
    if (pending.size) tell();
    else say(`${counted(decisions.size)} saved.`);
    return;
  }
  const link = element("a", "", { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "corrections.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  saved = true;
  say(`${counted(decisions.size)} in corrections.csv, among your downloads; atlas-ray relabel takes it.`);
}

addEventListener("beforeunload", (event) => {
  if (!saved && (!stored || served)) event.preventDefault();
});

addEventListener("storage", (event) => { // another tab with this page
  if (event.key !== data.key || !event.newValue) return;
  const before = [...decisions.keys()];
  decisions.clear();
  for (const [id, path] of JSON.parse(event.newValue)) decisions.set(id, path);
  for (const id of new Set([...before, ...decisions.keys()])) draw(id);
});

// Showing it.

function draw(id) {
  const product = products.get(id);
  if (product) {
    const path = decisions.get(id);
    product.card.classList.toggle("done", Boolean(path));
    let offered = false;
    for (const button of product.card.querySelectorAll("[data-choice]")) {
      const choice = product.choices[button.dataset.choice];
      const pressed = Boolean(path) && typeof choice === "number" && same(leaves[choice], path);
      button.setAttribute("aria-pressed", String(pressed));
      offered ||= pressed;
    }
    const other = product.card.querySelector(".other");
    other.setAttribute("aria-pressed", String(Boolean(path) && !offered));
    other.firstElementChild.textContent = path && !offered ? written(path) : "another path …";
  }
  const done = order.filter((one) => decisions.has(one)).length;
  at("done").value = done;
  at("count").textContent = `${done} of ${order.length} decided`;
  filter();
}

function filter() {
  const only = at("only").getAttribute("aria-pressed") === "true";
  order.forEach((id, place) => {
    products.get(id).card.hidden = only && place !== now && decisions.has(id);
  });
}

function go(place, scroll = true) {
  cards[now]?.classList.remove("now");
  now = Math.max(0, Math.min(place, cards.length - 1));
  const card = cards[now];
  if (!card) return;
  card.classList.add("now");
  filter();
  if (!scroll) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
}

function step(by) {
  let place = now + by;
  while (cards[place]?.hidden) place += by;
  if (cards[place]) go(place);
}

function next() { // the first after this one that is not decided; else the first of all
  const left = (place) => !decisions.has(order[place]);
  const places = order.map((_, place) => place);
  const place = places.find((one) => one > now && left(one)) ?? places.find(left);
  if (place === undefined) say(`All ${order.length} are decided; ${served ? "all is saved" : "press Save"}.`);
  else go(place);
}

function choose(place, number) {
  const id = order[place];
  const choice = products.get(id).choices[number];
  if (choice === undefined) return;
  go(place, false);
  if (typeof choice !== "number") {
    open(choice);
    return;
  }
  const again = decisions.has(id) && same(decisions.get(id), leaves[choice]);
  decide(id, again ? null : leaves[choice]);
  if (!again) next();
}

// The picker over the taxonomy.

const picker = element("div", "", { id: "picker", hidden: true });
const field = element("input", "", { type: "text", autocomplete: "off", spellcheck: false, placeholder: "type some of the path" });
const list = element("ul", "", { id: "leaves" });
const hint = element("p", "", { className: "soft" });
list.setAttribute("role", "listbox");
for (const [name, value] of Object.entries({ role: "combobox", "aria-controls": "leaves", "aria-expanded": "true", "aria-label": "category path" })) {
  field.setAttribute(name, value);
}
picker.append(field, hint, list);
let searched = null;
let scope = [];
let found = [];
let marked = 0;

function open(below = []) {
  searched ??= leaves.map((path) => ({ path, text: folded(written(path)), name: folded(path.at(-1)) }));
  scope = below;
  field.value = "";
  cards[now].querySelector(".choices").after(picker);
  picker.hidden = false;
  search();
  field.focus();
}

function close() {
  picker.hidden = true;
  cards[now].focus({ preventScroll: true });
}

function search() {
  const words = folded(field.value).split(/[\s>]+/u).filter(Boolean);
  const last = words.at(-1) || "";
  const inside = (path) => scope.every((name, level) => path[level] === name);
  const hits = searched.filter(({ path, text }) => inside(path) && words.every((word) => text.includes(word)));
  const rank = ({ name }) => (name.startsWith(last) ? 0 : name.includes(last) ? 1 : 2);
  if (words.length) hits.sort((one, other) => rank(one) - rank(other)); // a stable sort: else in the taxonomy's order
  found = hits.slice(0, MOST).map(({ path }) => path);
  const typed = field.value.split(">").map((name) => name.trim()).filter(Boolean);
  if (data.free && typed.length && !found.some((path) => same(path, typed))) found.push(typed);
  const more = hits.length > MOST ? `, the first ${MOST} of ${hits.length.toLocaleString()}` : "";
  const there = scope.length ? ` below ${written(scope)}` : "";
  hint.textContent = `${data.free ? "paths of this list" : `leaves of ${data.taxonomy}`}${there}${more}${found.length ? "" : ": none has all of these words"}`;
  list.replaceChildren(
    ...found.map((path, place) => {
      const item = element("li", written(path), { id: `leaf-${place}` });
      item.setAttribute("role", "option");
      item.addEventListener("click", () => take(place));
      return item;
    }),
  );
  mark(0);
}

function mark(place) {
  marked = Math.max(0, Math.min(place, found.length - 1));
  [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === marked)));
  list.children[marked]?.scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", found.length ? `leaf-${marked}` : "");
}

function take(place) {
  if (!found[place]) return;
  picker.hidden = true;
  decide(order[now], found[place]);
  next();
}

field.addEventListener("input", search);
field.addEventListener("keydown", (event) => {
  if (event.isComposing) return; // an input method is at work
  const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
  if (step) mark(marked + step);
  else if (event.key === "Enter") take(marked);
  else if (event.key === "Escape") close();
  else return;
  event.preventDefault();
});

// Keys and clicks.

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  o: () => open(),
  "/": () => open(),
  u: () => decide(order[now], null),
  s: save,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.target === field) return;
  const ascii = /^[\x20-\x7e]$/.test(event.key); // another alphabet: by the key's place
  const letter = !ascii && event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : event.key;
  const digit = /^[1-9]$/.test(event.key) ? event.key : /^Digit[1-9]$/.test(event.code) && !ascii ? event.code.slice(5) : "";
  if (!cards.length || (!digit && !Object.hasOwn(KEYS, letter))) return;
  event.preventDefault();
  if (digit) choose(now, Number(digit) - 1);
  else KEYS[letter]();
});

cards.forEach((card, place) => {
  card.addEventListener("focusin", () => place !== now && go(place, false));
  for (const button of card.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => choose(place, Number(button.dataset.choice)));
  }
  card.querySelector(".other").addEventListener("click", () => {
    go(place, false);
    open();
  });
});
at("save").addEventListener("click", save);
at("only").addEventListener("click", () => {
  at("only").setAttribute("aria-pressed", String(at("only").getAttribute("aria-pressed") !== "true"));
  filter();
});

async function start() {
  const before = kept();
  for (const [id, path] of before) decisions.set(id, path);
  if (location.protocol.startsWith("http")) {
    const answer = await fetch("corrections").catch(() => null);
    if (answer?.ok) {
      served = true;
      const { corrections, file } = await answer.json();
      for (const [id, path] of corrections) decisions.set(id, path);
      const known = new Set(corrections.map(([id]) => id));
      for (const [id, path] of before) if (!known.has(id)) pending.set(id, path);
      say(`${counted(decisions.size)} in ${file}; each one is saved there at once.`);
      if (pending.size) tell();
    }
  }
  if (!served) say(before.length ? `${counted(before.length)} kept in this browser from before.` : `Nothing decided yet; what is will be ${where()}.`);
  keep();
  saved = served || !decisions.size;
  for (const id of order) draw(id);
  at("tools").hidden = false;
  go(Math.max(0, order.findIndex((id) => !decisions.has(id))), false);
}

start();
