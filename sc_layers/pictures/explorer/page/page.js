"use strict";

const token = new URLSearchParams(location.search).get("token") || "";
const at = (id) => document.getElementById(id);
const LEGENDS = {
  image: "",
  mask: "Orange shows where the mask of the chosen code is open; a code without a mask acts everywhere.",
  change: "Bright pixels change when the chosen code moves from 1 below its value to 1 above. Black is no change, " +
    "white the whole range; brightness is the root.",
};

let networks = [];
let bound = 4;
let view = { network: 0, seed: 0, truncation: 1, values: {}, sight: "image", code: 0 };
let pinned = null; // { view, image, text }
let drawn = null; // the answer to the last request for a picture
let drawing = false;
let waiting = false;
const history = [];
let moment = -1;

const rounded = (value, digits) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
const copyOf = (value) => JSON.parse(JSON.stringify(value));

async function ask(path, body) {
  const options = { headers: { "X-Token": token } };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options).catch(() => null);
  if (response === null) {
    throw new Error("the server does not answer: is `sc-layers explore` still running?");
  }
  if (!response.ok) {
    const text = await response.text();
    let message = text;
    try {
      message = JSON.parse(text).error;
    } catch {
      // a refusal is plain text
    }
    throw new Error(message);
  }
  return response;
}

function tell(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const codesOf = (network) => networks[network].codes;
const labelOf = (row) => row.name || `code ${row.code}`;
const rowOf = (code) => codesOf(view.network).find((row) => row.code === code);
const valueOf = (code) => view.values[code] ?? drawn?.codes[code] ?? 0;

function textOf(state) {
  const moved = Object.keys(state.values).length;
  const name = networks.length > 1 ? `${networks[state.network].name}, ` : "";
  return `${name}seed ${state.seed}, truncation ${state.truncation}` + (moved ? `, ${moved} moved` : "");
}

// One request is under way at a time; the newest view follows it, so that a slider never waits for a queue.
async function draw() {
  if (drawing) {
    waiting = true;
    return;
  }
  drawing = true;
  do {
    waiting = false;
    const asked = copyOf(view);
    const start = performance.now();
    try {
      const answer = await (await ask("picture", asked)).json();
      drawn = answer;
      at("image").src = answer.image;
      await at("image").decode().catch(() => {});
      at("image").alt = `Picture, ${textOf(asked)}, ${asked.sight}`;
      at("image-text").textContent = (pinned ? "B: " : "") + textOf(asked);
      for (const row of codesOf(asked.network)) {
        showCode(row.code);
      }
      document.body.dataset.drawn = JSON.stringify(asked);
      document.body.dataset.milliseconds = performance.now() - start;
      tell(`drawn in ${Math.round(performance.now() - start)} ms`);
    } catch (error) {
      tell(error.message, true);
    }
  } while (waiting);
  drawing = false;
}

function showCode(code) {
  const item = at(`code-${code}`);
  if (!item) {
    return;
  }
  const value = valueOf(code);
  const [slider, number] = item.querySelectorAll("input[type=range], input[type=number]");
  slider.value = value;
  if (document.activeElement !== number) {
    number.value = Number(value.toFixed(2));
  }
  item.querySelector("button").disabled = !(code in view.values);
  const thumbnail = item.querySelector("img");
  if (thumbnail && drawn?.masks[code]) {
    thumbnail.src = drawn.masks[code];
  }
}

function choose(code) {
  view.code = code;
  for (const item of at("codes").children) {
    const chosen = item.id === `code-${code}`;
    item.classList.toggle("chosen", chosen);
    if (chosen) {
      item.setAttribute("aria-current", "true");
    } else {
      item.removeAttribute("aria-current");
    }
  }
  for (const span of document.querySelectorAll("span.chosen")) {
    span.textContent = labelOf(rowOf(code));
  }
}

function move(code, value) {
  if (!Number.isFinite(value)) {
    return;
  }
  view.values[code] = Math.max(-bound, Math.min(bound, value));
  choose(code);
  showCode(code);
  draw();
}

function remember() {
  const now = JSON.stringify(view);
  if (history[moment] !== now) {
    history.splice(moment + 1, history.length, now);
    moment = history.length - 1;
  }
  at("undo").disabled = moment <= 0;
  at("redo").disabled = moment >= history.length - 1;
}

function goTo(index) {
  if (index < 0 || index >= history.length) {
    return;
  }
  moment = index;
  take(JSON.parse(history[moment]));
}

function take(state) {
  const before = view.network;
  view = copyOf(state);
  if (before !== view.network) {
    drawn = null;
    fillCodes();
  }
  showControls();
  remember();
  draw();
}

function showControls() {
  at("network").value = view.network;
  at("title").textContent = networks[view.network].name;
  at("seed").value = view.seed;
  at("truncation").value = view.truncation;
  at("truncation-value").textContent = view.truncation;
  document.querySelector(`input[name=sight][value=${view.sight}]`).checked = true;
  at("legend").textContent = LEGENDS[view.sight];
  choose(view.code);
  for (const row of codesOf(view.network)) {
    showCode(row.code);
  }
}

function element(name, attributes) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  return made;
}

function fillCodes() {
  const items = codesOf(view.network).map((row) => {
    const label = labelOf(row);
    const item = element("li", { id: `code-${row.code}` });
    const mask = row.masked ? element("img", { alt: `Mask of ${label}` }) : element("span", { class: "none", title: "no mask: acts everywhere" });
    const texts = element("span", { class: "label" });
    const name = element("input", { type: "text", class: "name", maxlength: 100, placeholder: `code ${row.code}`, "aria-label": `Name of code ${row.code}` });
    name.value = row.name;
    name.addEventListener("change", () => rename(row.code, name));
    const tpl = element("span", { class: "tpl" });
    tpl.textContent = row.name ? `code ${row.code}` : "";
    if (row.tpl !== undefined) {
      tpl.textContent += `${row.name ? ", " : ""}tpl ${rounded(row.tpl, 3)} \u00b1 ${rounded(row.error, 2)}`;
    }
    texts.append(name, tpl);
    const slider = element("input", { type: "range", min: -bound, max: bound, step: 0.01, "aria-label": label });
    slider.addEventListener("input", () => move(row.code, slider.valueAsNumber));
    slider.addEventListener("change", remember);
    const number = element("input", { type: "number", min: -bound, max: bound, step: 0.1, "aria-label": `${label}, value` });
    number.addEventListener("change", () => {
      move(row.code, number.valueAsNumber);
      remember();
    });
    const back = element("button", { type: "button", "aria-label": `${label} as in the seed`, title: "as in the seed" });
    back.textContent = "\u21ba";
    back.addEventListener("click", () => {
      delete view.values[row.code];
      choose(row.code);
      remember();
      draw();
    });
    item.addEventListener("pointerdown", () => chooseAndDraw(row.code));
    item.addEventListener("focusin", () => chooseAndDraw(row.code));
    item.append(mask, texts, slider, number, back);
    return item;
  });
  at("codes").replaceChildren(...items);
  const measured = codesOf(view.network).some((row) => row.tpl !== undefined);
  at("order").textContent = measured
    ? "Ordered by traversal perceptual length (tpl): the first code changes the picture most."
    : "In the order of their numbers.";
}

function chooseAndDraw(code) {
  if (view.code !== code) {
    choose(code);
    if (view.sight !== "image") {
      draw();
    }
  }
}

async function rename(code, input) {
  const network = view.network;
  try {
    networks[network].codes = (await (await ask("name", { network, code, name: input.value })).json()).codes;
    tell(input.value ? `code ${code} is called ${input.value}, kept in the file` : `code ${code} has no name`);
  } catch (error) {
    input.value = rowOf(code).name;
    tell(error.message, true);
  }
  const focused = document.activeElement?.closest("li")?.id;
  fillCodes();
  showControls();
  at(focused)?.querySelector("input")?.focus();
}

function save(address, name) {
  const link = element("a", { href: address, download: name });
  link.click();
}

function fileName(extension) {
  return `seed${view.seed}-code${view.code}-${view.sight}.${extension}`;
}

async function saveSweep() {
  try {
    tell("drawing the sweep");
    const address = URL.createObjectURL(await (await ask("sweep", view)).blob());
    save(address, `seed${view.seed}-code${view.code}.gif`);
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    tell("saved");
  } catch (error) {
    tell(error.message, true);
  }
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(drawn.command);
    tell(`copied: ${drawn.command}`);
  } catch {
    tell(drawn.command); // a page that was not reached at localhost has no clipboard
  }
}

function showPinned() {
  at("pinned").hidden = at("swap").hidden = pinned === null;
  at("pin").setAttribute("aria-pressed", String(pinned !== null));
  at("pin").textContent = pinned ? "Unpin A" : "Pin as A";
  if (pinned) {
    at("pinned-image").src = pinned.image;
    at("pinned-text").textContent = `A: ${pinned.text}`;
  }
  at("image-text").textContent = (pinned ? "B: " : "") + textOf(view);
}

function connect() {
  at("undo").addEventListener("click", () => goTo(moment - 1));
  at("redo").addEventListener("click", () => goTo(moment + 1));
  at("pin").addEventListener("click", () => {
    pinned = pinned ? null : { view: copyOf(view), image: drawn.image, text: textOf(view) };
    showPinned();
  });
  at("swap").addEventListener("click", () => {
    const other = pinned.view;
    pinned = { view: copyOf(view), image: drawn.image, text: textOf(view) };
    take(other);
    showPinned();
  });
  at("png").addEventListener("click", () => save(at("image").src, fileName("png")));
  at("gif").addEventListener("click", saveSweep);
  at("copy").addEventListener("click", copyCommand);
  at("network").addEventListener("change", () => {
    const network = Number(at("network").value);
    take({ ...view, network, values: {}, code: codesOf(network)[0].code });
  });
  at("seed").addEventListener("change", () => {
    if (at("seed").checkValidity() && at("seed").value) {
      take({ ...view, seed: at("seed").valueAsNumber, values: {} });
    } else {
      tell("a seed is a whole number from 0 to 4294967295", true);
    }
  });
  at("another").addEventListener("click", () => take({ ...view, seed: Math.floor(Math.random() * 1e6), values: {} }));
  at("truncation").addEventListener("input", () => {
    view.truncation = at("truncation").valueAsNumber;
    at("truncation-value").textContent = view.truncation;
    draw();
  });
  at("truncation").addEventListener("change", remember);
  at("reset").addEventListener("click", () => take({ ...view, values: {} }));
  for (const radio of document.querySelectorAll("input[name=sight]")) {
    radio.addEventListener("change", () => take({ ...view, sight: radio.value }));
  }
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.target.matches("input[type=text], input[type=number]")) {
      return;
    }
    const key = event.key.toLowerCase();
    if (key === "z" || key === "y") {
      event.preventDefault();
      goTo(moment + (key === "y" || event.shiftKey ? 1 : -1));
    }
  });
}

async function start() {
  try {
    const answer = await (await ask("networks")).json();
    networks = answer.networks;
    bound = answer.bound;
    networks.forEach((network, index) => at("network").append(new Option(network.name, index)));
    at("network-label").hidden = networks.length < 2;
    view.truncation = answer.truncation;
    view.code = codesOf(0)[0].code;
    fillCodes();
    showControls();
    connect();
    remember();
    await draw();
  } catch (error) {
    tell(error.message, true);
  }
}

start();
