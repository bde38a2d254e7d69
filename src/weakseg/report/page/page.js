"use strict";
const run = JSON.parse(document.getElementById("table").textContent);
const photos = run.photos.map(([id, split, tags, sure, iou, [width, height], src, made], place) =>
  ({ place, id, split, tags, sure, iou, width, height, src, made }));
const views = [...run.steps, ...(run.truth ? ["true masks"] : [])];
const columns = run.steps.length + 1; // of a photo's masks; the last is the true one
const noMask = -1;
const state = { view: run.last, outline: false, tags: new Set(), split: null, text: "", sort: "sure", reversed: false };
const byId = (id) => document.getElementById(id);
const grid = byId("grid"), large = byId("large"), stage = large.querySelector(".stage");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Pictures: lines of an element of the page, parsed when they are first shown.
const chunks = new Map();
let whole = 0; // chunks that have arrived
function arrived() { whole += 1; schedule(); }
function pictures(place) {
  const number = Math.floor(place / run.chunk);
  if (number >= whole) return null;
  if (!chunks.has(number)) {
    const source = byId(`chunk-${number}`);
    chunks.set(number, source.textContent.split("\n"));
    source.remove();
  }
  const [photo, masks] = chunks.get(number)[place % run.chunk].split(" ");
  return { photo: `data:image/webp;base64,${photo}`, masks: `data:image/webp;base64,${masks}` };
}

// Figures of a photo: its confidence is that of its least sure class.
const known = (values) => (values || []).filter((value) => value !== null);
function sureOf(photo) {
  if (!photo.sure) return null;
  const values = known(photo.sure);
  if (values.length) return Math.min(...values);
  return photo.tags.length ? null : 1000;
}
function iouOf(photo, step) {
  const values = known(photo.iou[step]);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}
const measured = () => (state.view in run.steps ? state.view : run.last);
const percent = (value) => (value === null || value === undefined ? "–" : (value / 10).toFixed(0));
const hasMask = (photo) => state.view !== noMask && photo.made[state.view];

// Which photos, in which order.
const orders = { name: { text: "by name", of: (photo) => photo.place } };
if (photos.some((photo) => photo.sure)) orders.sure = { text: "least sure first", of: sureOf };
if (run.truth) orders.iou = { text: "lowest IoU first", of: (photo) => iouOf(photo, measured()) };
if (!(state.sort in orders)) state.sort = "name";
let shown = [];
function choose() {
  const text = state.text.toLowerCase(), { of } = orders[state.sort], sign = state.reversed ? -1 : 1;
  const kept = [];
  for (const photo of photos) {
    if (state.split !== null && photo.split !== state.split) continue;
    if (state.tags.size && !photo.tags.some((tag) => state.tags.has(tag))) continue;
    if (text && !photo.id.toLowerCase().includes(text)) continue;
    kept.push([of(photo), photo]);
  }
  kept.sort(([a, one], [b, other]) => {
    if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
    return sign * (a - b) || one.place - other.place;
  });
  shown = kept.map(([, photo]) => photo);
  for (const tile of tiles.values()) tile.remove();
  tiles.clear();
  byId("count").textContent = shown.length === photos.length
    ? `${photos.length} photos` : `${shown.length} of ${photos.length} photos`;
  byId("none").hidden = shown.length > 0;
  window.scrollTo(0, 0);
  schedule();
}

// The grid: only the tiles that can be seen are in the page.
const tiles = new Map();
const gap = 12, least = 176, captionHeight = 20;
let scheduled = false;
function schedule() {
  if (!scheduled) { scheduled = true; requestAnimationFrame(() => { scheduled = false; draw(); }); }
}
function draw() {
  const width = grid.clientWidth;
  if (!width) return;
  const across = Math.max(1, Math.floor((width + gap) / (least + gap)));
  const side = (width - gap * (across - 1)) / across;
  const box = Math.round(side * 0.75), step = box + captionHeight + gap;
  grid.style.height = `${Math.ceil(shown.length / across) * step}px`;
  const top = -grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor((top - 200) / step)) * across;
  const end = Math.min(shown.length, (Math.ceil((top + window.innerHeight + 200) / step)) * across);
  for (const [index, tile] of tiles) {
    if (index < first || index >= end) { tile.remove(); tiles.delete(index); }
  }
  for (let index = first; index < end; index += 1) {
    let tile = tiles.get(index);
    if (!tile) { tile = makeTile(shown[index], index); tiles.set(index, tile); grid.append(tile); }
    tile.style.left = `${(index % across) * (side + gap)}px`;
    tile.style.top = `${Math.floor(index / across) * step}px`;
    tile.style.width = `${side}px`;
    tile.firstChild.style.height = `${box}px`;
    fit(tile.querySelector(".frame"), shown[index], side, box);
    if (!tile.dataset.drawn) fill(tile, shown[index]);
  }
}
function fit(frame, photo, width, height) {
  const scale = Math.min(width / photo.width, height / photo.height);
  frame.style.width = `${photo.width * scale}px`;
  frame.style.height = `${photo.height * scale}px`;
}
function makeTile(photo, index) {
  const tile = element("button", "tile");
  tile.title = photo.id;
  const box = element("span", "box"), frame = element("span", "frame");
  frame.append(element("img"), element("span", "masks"));
  frame.firstChild.alt = "";
  box.append(frame);
  const caption = element("span", "caption");
  caption.append(element("span", "id", photo.id), element("span", "value"));
  tile.append(box, caption);
  tile.addEventListener("click", () => open(index));
  label(tile, photo);
  return tile;
}
function fill(tile, photo) {
  const found = pictures(photo.place);
  if (!found) return;
  tile.dataset.drawn = "yes";
  lay(tile.querySelector(".frame"), found);
}
function lay(frame, found) {
  frame.querySelector("img").src = found.photo;
  const masks = frame.querySelector(".masks");
  masks.style.backgroundImage = `url("${found.masks}")`;
  masks.style.backgroundSize = `${columns * 100}% 100%`;
  masks.style.backgroundPosition = "var(--place) 0";
}
function label(tile, photo) {
  const value = tile.querySelector(".value"), sure = sureOf(photo), iou = iouOf(photo, measured());
  value.replaceChildren();
  for (const [name, number] of [["sure", sure], ["IoU", iou]]) {
    if (number !== null) value.append(element("span", "", name), element("b", "", percent(number)));
  }
  tile.classList.toggle("none", !hasMask(photo));
}

// What is laid over the photos.
function show(view) {
  state.view = view;
  for (const group of [byId("steps"), byId("large-steps")]) {
    for (const button of group.children) button.setAttribute("aria-pressed", String(Number(button.dataset.view) === view));
  }
  const place = `${columns > 1 && view > noMask ? (100 * view) / (columns - 1) : 0}%`;
  for (const area of [grid, stage]) area.style.setProperty("--place", place);
  for (const [index, tile] of tiles) label(tile, shown[index]);
  if (large.open) enlarge();
}
function turn(by) { show(Math.min(views.length - 1, Math.max(noMask, state.view + by))); }
function setOutline(wanted) {
  state.outline = wanted;
  byId("outline").checked = wanted;
  for (const area of [grid, stage]) area.classList.toggle("outline", wanted);
}
function setHidden(wanted) {
  for (const area of [grid, stage]) area.classList.toggle("hidden", wanted);
}

// One photo, large: from its own file and its masks' own, where they still are beside the page.
let current = 0;
function open(index) {
  current = index;
  if (!large.open) large.showModal();
  enlarge();
}
function fileOf(photo) {
  if (state.view === noMask || !(state.view in run.steps) || !hasMask(photo)) return null;
  return ["..", run.steps[state.view], ...photo.id.split("/")].map(encodeURIComponent).join("/") + ".png";
}
function enlarge() {
  const photo = shown[current], found = pictures(photo.place);
  const frame = element("div", "frame");
  frame.append(element("img"), element("span", "masks"));
  if (found) lay(frame, found);
  fit(frame, photo, Math.min(stage.clientWidth - 32, 3 * photo.width), Math.min(stage.clientHeight - 32, 3 * photo.height));
  frame.classList.toggle("none", !hasMask(photo));
  over(frame, frame.firstChild, photo.src, "full");
  const file = fileOf(photo);
  if (file) over(frame, frame.querySelector(".masks"), file, "full-mask");
  stage.replaceChildren(frame);

  byId("large-name").textContent = photo.id;
  byId("large-facts").textContent = `${photo.width} × ${photo.height} · ${run.splits[photo.split]} · ${current + 1} of ${shown.length}`;
  for (const button of byId("large-steps").children) {
    const view = Number(button.dataset.view);
    button.disabled = view !== noMask && !photo.made[view];
    button.lastChild.textContent = view in run.steps && run.truth ? percent(iouOf(photo, view)) : "";
  }
  const table = byId("large-classes"), head = element("tr");
  head.append(element("th", "", "tag"), element("th", "n", "sure"), ...(run.truth ? [element("th", "n", "IoU")] : []));
  table.replaceChildren(head, ...photo.tags.map((tag, i) => {
    const row = element("tr"), name = element("td");
    name.append(swatch(tag), " ", run.classes[tag - 1]);
    row.append(name, element("td", "n", percent(photo.sure && photo.sure[i])));
    if (run.truth) row.append(element("td", "n", percent(photo.iou[measured()][i])));
    return row;
  }));
}
function over(frame, small, src, className) {
  const image = element("img", className);
  image.hidden = true;
  image.alt = "";
  image.addEventListener("load", () => { image.hidden = false; small.hidden = true; });
  image.src = src;
  small.after(image);
}
function swatch(tag) {
  const mark = element("span", "swatch");
  mark.style.background = run.colours[tag];
  return mark;
}

// Controls.
function choice(group, withFigures) {
  const names = ["photo", ...views];
  names.forEach((name, i) => {
    const button = element("button", "", name);
    if (withFigures) button.append(element("span", "n"));
    button.dataset.view = String(i - 1);
    button.addEventListener("click", () => show(Number(button.dataset.view)));
    group.append(button);
  });
}
choice(byId("steps"), false);
choice(byId("large-steps"), true);
for (const [name, { text }] of Object.entries(orders)) byId("sort").append(new Option(text, name));
byId("sort").value = state.sort;
byId("sort").addEventListener("change", (event) => { state.sort = event.target.value; choose(); });
byId("reverse").addEventListener("change", (event) => { state.reversed = event.target.checked; choose(); });
byId("search").addEventListener("input", (event) => { state.text = event.target.value; choose(); });
byId("outline").addEventListener("change", (event) => setOutline(event.target.checked));
byId("opacity").addEventListener("input", (event) => {
  for (const area of [grid, stage]) area.style.setProperty("--opacity", event.target.value / 100);
});

function toggle(name, count, mark, pressed) {
  const button = element("button", "tag");
  button.append(mark, element("span", "", name), element("span", "", String(count)));
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => button.setAttribute("aria-pressed", String(pressed())));
  return button;
}
const counts = new Map();
for (const photo of photos) for (const tag of photo.tags) counts.set(tag, (counts.get(tag) || 0) + 1);
for (const [tag, count] of [...counts].sort(([a], [b]) => a - b)) {
  byId("tags").append(toggle(run.classes[tag - 1], count, swatch(tag), () => {
    if (!state.tags.delete(tag)) state.tags.add(tag);
    choose();
    return state.tags.has(tag);
  }));
}
byId("tag-search").hidden = counts.size <= 30;
byId("tag-search").addEventListener("input", (event) => {
  const text = event.target.value.toLowerCase();
  for (const button of byId("tags").children) button.hidden = !button.textContent.toLowerCase().includes(text);
});
if (run.splits.length > 1) {
  run.splits.forEach((name, split) => {
    const count = photos.filter((photo) => photo.split === split).length;
    byId("splits").append(toggle(name, count, element("span"), () => {
      const chosen = state.split !== split;
      for (const other of byId("splits").children) other.setAttribute("aria-pressed", "false");
      state.split = chosen ? split : null;
      choose();
      return chosen;
    }));
  });
}
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("nav button")) other.setAttribute("aria-pressed", String(other === button));
    for (const view of document.querySelectorAll("main")) view.hidden = view.dataset.of !== button.dataset.view;
    window.scrollTo(0, 0);
    schedule();
  });
}
stage.addEventListener("click", () => large.close());
document.addEventListener("keydown", (event) => {
  if (event.target.matches('input[type="search"], select') || event.ctrlKey || event.metaKey || event.altKey) return;
  const move = (by) => { current = Math.min(shown.length - 1, Math.max(0, current + by)); enlarge(); };
  const keys = { o: () => setOutline(!state.outline), h: () => setHidden(true) };
  if (large.open) {
    keys.ArrowLeft = () => move(-1);
    keys.ArrowRight = () => move(1);
    keys.ArrowUp = () => turn(-1);
    keys.ArrowDown = () => turn(1);
  } else if (!event.target.matches("input")) {
    keys.ArrowLeft = () => turn(-1);
    keys.ArrowRight = () => turn(1);
  }
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});
document.addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "h") setHidden(false); });
window.addEventListener("scroll", schedule, { passive: true });
window.addEventListener("resize", () => { schedule(); if (large.open) enlarge(); });
show(state.view);
choose();
