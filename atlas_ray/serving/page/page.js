"use strict";

const at = (id) => document.getElementById(id);
const TEXTS = ["title", "description"];
const NOTHING = {}; // a product without a picture
const state = { model: null, explains: false, reads: [], within: [], asked: 0, used: 0, picture: null };

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.textContent = text;
  return made;
}

async function call(path, options) {
  // The page's own address may hold a name and a password, which fetch refuses; the browser sends them nonetheless.
  const answer = await fetch(new URL(path, location.origin + location.pathname), options);
  const body = await answer.json().catch(() => ({ detail: `the endpoint answered ${answer.status}` }));
  if (!answer.ok) throw new Error(body.detail || `the endpoint answered ${answer.status}`);
  return body;
}

const base = () => (state.model ? `v1/models/${encodeURIComponent(state.model)}` : "v1");

// The taxonomy: a tree whose branches are made when they are opened.

function grow(paths) {
  const root = new Map();
  for (const path of paths) {
    let node = root;
    for (const name of path) {
      if (!node.has(name)) node.set(name, new Map());
      node = node.get(name);
    }
  }
  return root;
}

function show(list, node, prefix) {
  for (const [name, children] of node) {
    const path = [...prefix, name];
    const item = document.createElement("li");
    const row = document.createElement("div");
    const choose = element("button", name, { type: "button" });
    choose.setAttribute("aria-pressed", "false");
    choose.addEventListener("click", () => narrow(path, choose));
    if (children.size) {
      const inner = document.createElement("ul");
      const open = element("button", "▸", { type: "button", className: "open" });
      open.setAttribute("aria-label", `open ${name}`);
      open.setAttribute("aria-expanded", "false");
      open.addEventListener("click", () => {
        if (!inner.childElementCount) show(inner, children, path);
        const hide = open.getAttribute("aria-expanded") === "true";
        inner.hidden = hide;
        open.setAttribute("aria-expanded", String(!hide));
        open.setAttribute("aria-label", `${hide ? "open" : "close"} ${name}`);
        open.textContent = hide ? "▸" : "▾";
      });
      row.append(open, choose);
      item.append(row, inner);
    } else {
      row.append(element("span", "", { className: "open" }), choose);
      item.append(row);
    }
    list.append(item);
  }
}

function narrow(path, button) {
  state.within = path;
  for (const pressed of document.querySelectorAll("#tree [aria-pressed=true]")) pressed.setAttribute("aria-pressed", "false");
  if (button) button.setAttribute("aria-pressed", "true");
  at("within").textContent = path.length ? path.join(" > ") : "the whole taxonomy";
  at("all").hidden = !path.length;
  if (state.picture) ask(state.picture);
}

// Asking, and what comes back.

async function ask(picture) {
  state.picture = picture;
  at("alone").hidden = picture === NOTHING;
  const number = ++state.asked;
  at("answer").setAttribute("aria-busy", "true");
  at("status").className = "";
  at("status").textContent = "Looking …";
  const within = state.within.join(" > ");
  const explain = state.explains && picture !== NOTHING;
  const texts = TEXTS.filter((field) => state.reads.includes(field) && at(field).value.trim());
  let options;
  if (picture.file) {
    const form = new FormData();
    form.append("file", picture.file);
    form.append("within", within);
    form.append("explain", String(explain));
    for (const field of texts) form.append(field, at(field).value);
    options = { method: "POST", body: form };
  } else {
    const said = Object.fromEntries(texts.map((field) => [field, at(field).value]));
    const asked = picture === NOTHING ? said : { image_uri: picture.uri, ...said };
    const body = JSON.stringify({ ...asked, within, explain });
    options = { method: "POST", body, headers: { "Content-Type": "application/json" } };
  }
  try {
    const { results } = await call(`${base()}/categorize`, options);
    if (number !== state.asked) return; // another one was asked for since
    if (results[0].error) throw new Error(results[0].error.message);
    draw(results[0], picture);
  } catch (error) {
    if (number !== state.asked) return;
    at("result").hidden = true;
    at("status").className = "wrong";
    at("status").textContent = error.message;
  } finally {
    if (number === state.asked) at("answer").setAttribute("aria-busy", "false");
  }
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

function bar(tag, text, share) {
  const made = element(tag, "", { className: "bar" });
  made.append(element("span", text), element("b", percent(share)));
  made.style.setProperty("--share", `${100 * share}%`);
  return made;
}

function draw(result, picture) {
  const unseen = result.picture_error ? `without the picture (${result.picture_error}), ` : "";
  at("status").textContent = result.labels ? `${unseen}${result.labels.length} labels` : `${unseen}${percent(result.probability)} sure of`;
  at("path").textContent = result.labels ? result.labels.map(({ label }) => label).join(", ") || "no label" : result.category_path.join(" > ");
  const image = at("picture");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  const source = picture.file ? URL.createObjectURL(picture.file) : result.picture;
  at("canvas").hidden = !source;
  image.onerror = () => { // a TIFF, say, which browsers do not show
    image.onerror = null;
    if (result.picture) image.src = result.picture;
  };
  if (source) image.src = source;
  else image.removeAttribute("src");
  if (result.labels) listLabels(result);
  else listLevels(result);
  at("ids").textContent = `model ${result.model_id} · taxonomy ${result.taxonomy_id}`;
  at("result").hidden = false;
  at("status").scrollIntoView({ block: "nearest" }); // on a phone it is below the tree
  look(result.attention ? result.category_path.length - 1 : -1, result);
}

function fill(name, heading, items) {
  at(`of-${name}`).textContent = heading;
  at(name).replaceChildren(...items);
}

function listLabels(result) {
  const items = (labels) => labels.map(({ label, probability }) => {
    const item = document.createElement("li");
    item.append(bar("div", label, probability));
    return item;
  });
  fill("levels", "Labels", items(result.labels));
  fill("alternatives", "Less probable labels", items(result.other_labels));
  at("outside").hidden = true;
}

function listLevels(result) {
  const levels = result.category_path.map((name, level) => {
    const item = document.createElement("li");
    const shown = bar(result.attention ? "button" : "div", name, result.level_probabilities[level]);
    if (result.attention) {
      shown.type = "button";
      shown.addEventListener("click", () => look(level, result));
    }
    item.append(shown);
    return item;
  });
  fill("levels", "Levels", levels);
  fill("alternatives", "Alternatives", result.alternatives.map((other) => {
    const item = document.createElement("li");
    item.append(bar("div", other.category_path.join(" > "), other.probability));
    return item;
  }));
  const outside = result.outside_probability;
  at("outside").hidden = outside < 0.005;
  at("outside").textContent = `${percent(outside)} of what the model would say is no path of what was searched; all shares above are of the rest.`;
}

function look(level, result) {
  [...at("levels").querySelectorAll("button")].forEach((button, index) => button.setAttribute("aria-pressed", String(index === level)));
  const overlay = at("overlay");
  overlay.hidden = level < 0;
  if (level < 0) overlay.removeAttribute("src");
  else overlay.src = result.attention[level];
  overlay.alt = level < 0 ? "" : `where the model looked for ${result.category_path[level]}`;
  at("caption").textContent = level < 0 ? "" : `Where the model looked for “${result.category_path[level]}”; choose a level to see its map.`;
}

// The page.

async function start() {
  const { models } = await call("v1/models");
  at("models").hidden = models.length < 2;
  at("name").replaceChildren(...models.map((name) => element("option", name, { value: name })));
  state.model = models[0];
  await use();
}

async function use() {
  const number = ++state.used;
  state.explains = false;
  state.within = [];
  const [model, taxonomy] = await Promise.all([call(base()), call(`${base()}/taxonomy`)]);
  if (number !== state.used) return; // another model was chosen since
  state.explains = model.explains;
  state.reads = model.reads;
  at("texts").hidden = !TEXTS.some((field) => model.reads.includes(field));
  for (const field of TEXTS) {
    at(field).hidden = document.querySelector(`label[for=${field}]`).hidden = !model.reads.includes(field);
  }
  const looks = model.image_size_px ? `, ${model.image_size_px} px` : "";
  const answers = taxonomy.labels ? `${Object.keys(taxonomy.labels).length} labels` : `${taxonomy.category_paths.length} category paths`;
  at("model").textContent = `${model.kind} of ${model.reads.join(", ")}, ${answers}${looks}`;
  at("narrow").hidden = Boolean(taxonomy.labels); // labels are named in no part of a taxonomy
  at("tree").replaceChildren();
  show(at("tree"), grow(taxonomy.category_paths), []);
  narrow([], null);
}

function failed(error) {
  at("status").className = "wrong";
  at("status").textContent = error.message;
}

at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) ask({ file });
  event.target.value = "";
});
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const uri = at("uri").value.trim();
  if (uri) ask({ uri });
});
at("texts").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(state.picture || NOTHING);
});
at("alone").addEventListener("click", () => {
  at("texts").querySelector("button").focus(); // this one hides
  ask(NOTHING);
});
at("all").addEventListener("click", () => narrow([], null));
at("name").addEventListener("change", (event) => {
  state.model = event.target.value;
  use().catch(failed);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file) ask({ file });
  });
}
start().catch(failed);
