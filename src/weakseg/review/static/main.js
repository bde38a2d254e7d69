// The page: which photo is shown, what is in hand, and what each key does.

import { History } from "./history.js";
import { paintMask, paintStrokes } from "./picture.js";
import * as server from "./server.js";

const BACKGROUND = "background", AHEAD = 2, SHOWN = 9, APART = 2;
const $ = (id) => document.getElementById(id);
const stage = $("stage");

let run, photos, order = "need";
let at = 0, held = BACKGROUND, brush = 6, hidden = false, spaced = false;
let mask = null, size = null, line = null, opened = 0;
const histories = new Map(), crf = new Map(), masks = new Map(), pictures = new Map();
const waiting = new Map();  // photo -> the promise that its strokes are kept

const photo = () => photos[at];
const names = () => [BACKGROUND, ...photo().tags];
const colourOf = (name) => {
  const id = name === BACKGROUND ? 0 : run.classes.indexOf(name) + 1;
  return id ? `rgb(${run.colours[id].join(" ")})` : "#111";
};

function say(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

function element(name, properties = {}, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

// Showing

async function open(index) {
  at = Math.min(Math.max(index, 0), photos.length - 1);
  const { id } = photo(), mine = ++opened;
  const tags = photo().tags;
  if (!names().includes(held) || held === BACKGROUND) held = tags[0] ?? BACKGROUND;
  mask = line = null;
  stage.ariaBusy = "true";
  say("");
  $("tag").value = "";
  draw();
  for (const name of ["mask", "strokes"]) $(name).getContext("2d").clearRect(0, 0, 1e5, 1e5);
  try {
    const shown = picture(id);
    await shown.decode();
    if (mine !== opened) return;
    size = { width: shown.naturalWidth, height: shown.naturalHeight };
    $("photo").src = shown.src;
    fit();
    if (!histories.has(id)) {
      const known = await server.strokes(id);
      histories.set(id, new History(known.strokes));
      crf.set(id, known.crf);
    }
    const found = await stored(id);
    if (mine !== opened) return;
    mask = found;
    draw();
    look();
    stage.ariaBusy = "false";
    for (const next of photos.slice(at + 1, at + 1 + AHEAD)) {
      picture(next.id);
      stored(next.id).catch(() => masks.delete(next.id));
    }
  } catch (error) {
    masks.delete(id);
    if (mine === opened) say(error.message, true);
  }
}

function picture(id) {
  if (!pictures.has(id)) pictures.set(id, Object.assign(new Image(), { src: server.photoAddress(id) }));
  forget(pictures);
  return pictures.get(id);
}

function stored(id) {
  if (!masks.has(id)) masks.set(id, server.mask(id));
  forget(masks);
  return masks.get(id);
}

function forget(kept) {
  for (const id of kept.keys()) {
    if (kept.size <= 12) return;
    if (id !== photo().id) kept.delete(id);
  }
}

function fit() {
  if (!size) return;
  const { clientWidth, clientHeight } = $("table");
  const scale = Math.min((clientWidth - 32) / size.width, (clientHeight - 32) / size.height);
  stage.style.width = `${Math.round(size.width * scale)}px`;
  stage.style.height = `${Math.round(size.height * scale)}px`;
}

/** The mask and its strokes. */
function look() {
  if (!mask) return;
  paintMask($("mask"), mask, run.colours);
  lines();
}

function percent(share) { return share < 0.005 ? "under 1 %" : `${Math.round(100 * share)} %`; }

function lines() {
  const drawn = histories.get(photo().id)?.strokes ?? [];
  paintStrokes($("strokes"), size.width, size.height, line ? [...drawn, line] : drawn, colourOf);
}

/** All beside the photo. */
function draw() {
  const now = photo(), history = histories.get(now.id);
  $("name").textContent = now.id;
  $("place").textContent = `${at + 1} of ${photos.length}`;
  const sure = now.confidence === null ? "" : `${percent(now.confidence)} sure`;
  $("sure").textContent = now.accepted ? "accepted" : sure;
  $("sure").classList.toggle("accepted", now.accepted);
  $("classes").replaceChildren(...names().map((name, index) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colourOf(name);
    const item = element("li", { className: name === held ? "held" : "", onclick: () => hold(name) },
      swatch, element("span", { className: "name", textContent: name, title: name }));
    if (name !== BACKGROUND) {
      const lose = (event) => { event.stopPropagation(); retag(now.tags.filter((tag) => tag !== name)); };
      item.append(element("button", { type: "button", textContent: "×", title: `${name} is not in this photo`, onclick: lose }));
    }
    if (index < 10) item.append(element("kbd", { textContent: index ? String(index) : "0 E" }));
    return item;
  }));
  $("classes").querySelector(".held").scrollIntoView({ block: "nearest" });
  $("undo").disabled = !now.accepted && !history?.strokes.length;
  $("undo").title = now.accepted ? "Accepted no longer" : "";
  $("redo").disabled = !history?.undone.length;
  $("crf").classList.toggle("on", crf.get(now.id) ?? true);
  $("size").value = brush;
  stage.classList.toggle("hidden", hidden || spaced);
  $("hide").classList.toggle("on", hidden);
  $("accept").firstChild.textContent = now.accepted ? "Accepted: next " : "Accept and next ";
  $("count").textContent = `${photos.filter((one) => one.accepted).length} of ${photos.length} accepted`;
  strip();
}

function strip() {
  const first = Math.max(0, Math.min(at - (SHOWN >> 1), photos.length - SHOWN));
  const buttons = photos.slice(first, first + SHOWN + 6).map((one, index) => {
    const marks = [first + index === at && "now", one.accepted && "accepted", one.mended && "mended"];
    const known = [...$("strip").children].find((button) => button.dataset.id === one.id);
    const button = known ?? element("button", { type: "button" },
      element("img", { src: server.photoAddress(one.id, true), alt: "", onload: bringIntoView }));
    button.dataset.id = one.id;
    button.title = one.id;
    button.onclick = () => open(first + index);
    button.className = marks.filter(Boolean).join(" ");
    return button;
  });
  $("strip").replaceChildren(...buttons);
  bringIntoView();
}

function bringIntoView() {
  $("strip").querySelector(".now").scrollIntoView({ block: "nearest", inline: "nearest" });
}

// Strokes

function pixel(event) {
  const box = stage.getBoundingClientRect();
  const round = (value) => Math.round(10 * value) / 10;
  return [round((event.clientX - box.left) / box.width * size.width),
    round((event.clientY - box.top) / box.height * size.height)];
}

stage.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener("pointerdown", (event) => {
  if (!mask || !histories.has(photo().id) || event.button === 1) return;
  stage.setPointerCapture(event.pointerId);
  line = { name: event.button === 2 ? BACKGROUND : held, points: [pixel(event)], radius: brush };
  lines();
});
stage.addEventListener("pointermove", (event) => {
  if (!mask) return;
  cursor(event);
  if (!line) return;
  for (const one of event.getCoalescedEvents?.() ?? [event]) {
    const point = pixel(one), last = line.points.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) >= APART) line.points.push(point);
  }
  lines();
});
stage.addEventListener("pointerup", () => {
  if (!line) return;
  histories.get(photo().id).add(line);
  line = null;
  keep();
});
stage.addEventListener("pointercancel", () => { line = null; look(); });
stage.addEventListener("pointerleave", () => { $("brush").style.display = "none"; });

function cursor(event) {
  const box = stage.getBoundingClientRect(), side = 2 * brush * box.width / size.width;
  Object.assign($("brush").style, {
    display: "block", width: `${side}px`, height: `${side}px`,
    left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px`,
  });
}

/** Have the server keep the strokes as they are, after what it is still at; its mask follows. */
function keep() {
  const now = photo(), history = histories.get(now.id);
  now.accepted = false;
  now.mended = history.strokes.length > 0;
  draw();
  lines();
  say("Working …");
  const before = waiting.get(now.id) ?? Promise.resolve();
  const mine = before.then(async () => {
    if (waiting.get(now.id) !== mine) return;  // a later one sends them all
    const given = { strokes: history.strokes, crf: crf.get(now.id) };
    try {
      const found = await server.draw(now.id, given);
      masks.set(now.id, Promise.resolve(found));
      if (photo().id === now.id) {
        mask = found;
        look();
        if (waiting.get(now.id) === mine) say("Saved");
      }
    } catch (error) {
      say(error.message, true);
    }
  });
  waiting.set(now.id, mine);
}

// What keys and buttons do

function hold(name) { if (names().includes(name)) { held = name; draw(); } }
function holdNext(by) { hold(names()[names().indexOf(held) + by]); }
function resize(by) { brush = Math.min(60, Math.max(1, Math.round(brush + by))); $("size").value = brush; }
function undo() { if (photo().accepted) reopen(); else if (histories.get(photo().id)?.undo()) keep(); }
function redo() { if (histories.get(photo().id)?.redo()) keep(); }
function hide(now) { hidden = now; draw(); }

function follow() {
  const { id } = photo();
  if (!histories.has(id)) return;
  crf.set(id, !crf.get(id));
  if (histories.get(id).strokes.length) keep(); else draw();
}

async function accept() {
  const now = photo();
  try {
    await waiting.get(now.id);
    await server.accept(now.id, true);
    now.accepted = true;
    if (photo() !== now) return draw();
    if (at + 1 < photos.length) return open(at + 1);
    draw();
    const left = photos.filter((one) => !one.accepted).length;
    say(left ? `This was the last. Not accepted: ${left}` : "All photos are accepted");
  } catch (error) {
    say(error.message, true);
  }
}

async function reopen() {
  const now = photo();
  try {
    await server.accept(now.id, false);
    now.accepted = false;
    masks.delete(now.id);
    if (photo() === now) open(at); else draw();
  } catch (error) {
    say(error.message, true);
  }
}

function skip() {
  const next = photos.findIndex((one, index) => index > at && !one.accepted);
  if (next >= 0) open(next); else say("All that follow are accepted");
}

async function retag(tags) {
  const now = photo();
  try {
    await waiting.get(now.id);
    const known = await server.tag(now.id, tags);
    now.tags = known.tags;
    now.accepted = false;
    histories.get(now.id)?.keep([BACKGROUND, ...known.tags]);
    masks.delete(now.id);
    if (photo() === now) open(at);
  } catch (error) {
    say(error.message, true);
  }
}

async function teach() {
  const { id } = photo();
  $("teach").disabled = true;
  say("Teaching …");
  try {
    await Promise.all(waiting.values());
    const { changed, seconds } = await server.teach();
    masks.clear();
    const places = new Map(changed.map(([one, share], index) => [one, { index, share }]));
    for (const one of photos) one.change = places.get(one.id)?.index ?? Infinity;
    const most = changed.length ? ` The most: ${Math.round(100 * changed[0][1])} % of a photo.` : "";
    $("taught").textContent = `${changed.length} masks follow, in ${seconds.toFixed(1)} s.${most}`;
    $("order").options[1].disabled = false;
    say("");
    if (changed.length) sort("changed"); else open(photos.findIndex((one) => one.id === id));
  } catch (error) {
    say(error.message, true);
  }
  $("teach").disabled = false;
}

function sort(by) {
  order = $("order").value = by;
  photos.sort((one, other) => (by === "changed" && one.change !== other.change ? one.change - other.change : one.need - other.need));
  open(0);
}

$("undo").onclick = undo;
$("redo").onclick = redo;
$("hide").onclick = () => hide(!hidden);
$("crf").onclick = follow;
$("accept").onclick = accept;
$("skip").onclick = skip;
$("teach").onclick = teach;
$("help").onclick = () => $("keys").showModal();
$("size").oninput = () => { brush = Number($("size").value); };
$("order").onchange = () => sort($("order").value);
$("add").onsubmit = (event) => {
  event.preventDefault();
  const name = $("tag").value.trim();
  if (!run.classes.includes(name)) { say(`${name} is no class of this run`, true); return; }
  $("tag").value = "";
  $("tag").blur();
  retag([...photo().tags, name]);
};

const KEYS = {
  d: () => open(at + 1), arrowright: () => open(at + 1),
  a: () => open(at - 1), arrowleft: () => open(at - 1),
  arrowup: () => holdNext(-1), arrowdown: () => holdNext(1),
  e: () => hold(BACKGROUND), s: skip, c: follow, enter: accept,
  h: () => hide(!hidden), t: () => $("tag").focus(),
  "[": () => resize(Math.min(-1, -brush / 5)), "]": () => resize(Math.max(1, brush / 5)),
  "?": () => $("keys").showModal(),
};

addEventListener("keydown", (event) => {
  if (!photos || $("keys").open) return;
  if (event.target.matches("input:not([type=range]), select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.target.matches("button") && (event.key === "Enter" || event.key === " ")) return;
  const key = event.key.toLowerCase();
  let act = KEYS[key];
  if (event.ctrlKey || event.metaKey) {
    act = { z: event.shiftKey ? redo : undo, y: redo }[key];
  } else if (event.altKey) {
    return;
  } else if (/^[0-9]$/.test(key)) {
    act = () => hold(names()[Number(key)]);
  } else if (key === " ") {
    act = () => { spaced = true; draw(); };
  }
  if (act) { event.preventDefault(); act(); }
});
addEventListener("keyup", (event) => {
  if (event.key === " " && spaced) { event.preventDefault(); spaced = false; draw(); }
});
addEventListener("mousedown", (event) => {
  if (!event.target.closest("button")) return;
  event.preventDefault();  // Enter and Space stay the photo's
  document.activeElement.blur();
});
addEventListener("resize", fit);
addEventListener("beforeunload", (event) => { if ($("state").textContent === "Working …") event.preventDefault(); });

try {
  run = await server.overview();
  photos = run.photos;
  photos.forEach((one, index) => { one.need = index; });
  document.title = `${run.run}: ${run.step}`;
  $("names").replaceChildren(...run.classes.map((name) => element("option", { value: name })));
  await open(Math.max(0, photos.findIndex((one) => !one.accepted)));
} catch (error) {
  say(error.message, true);
}
