// The picture and the table of the report. Everything that a researcher wrote goes into
// the page as text nodes only; the page's policy lets no other script run.
"use strict";

const PAGE = 100; // rows at a time
const LINES = 4000; // of a diff or a log
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

let meta; // what belongs to the tag as a whole
let rows = []; // the experiments, in order
const view = { search: "", status: "", family: "", column: "number", down: true, page: 0 };
const opened = new Set(); // numbers
const unpacked = new Map(); // blocks of details, by number

// ---- data

async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function details(row) {
  if (row.block === null) return Promise.resolve(null);
  if (!unpacked.has(row.block)) unpacked.set(row.block, unpack(`details-${row.block}`));
  return unpacked.get(row.block).then((block) => block[row.number]);
}

// ---- elements

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));
const signed = (value) =>
  value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(6);
const label = (row) => (row.provisional ? "provisional" : row.status);

// ---- the picture

// About `count` round values between low and high.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((one) => one >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function plot(width, height, x, y, left = 64) {
  const right = 26, top = 10, bottom = 26;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  const toX = (v) => left + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const toY = (v) => top + ((y[1] - v) / (y[1] - y[0] || 1)) * (height - top - bottom);
  const level = ticks(y[0], y[1], height / 45);
  for (const value of level.found) {
    const at = toY(value);
    svg.append(drawn("line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
    const text = value.toFixed(level.digits);
    svg.append(drawn("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, text));
  }
  const along = ticks(x[0], x[1], width / 110);
  for (const value of along.found) {
    const text = value.toLocaleString("en", { maximumFractionDigits: along.digits });
    svg.append(drawn("text", { x: toX(value), y: height - 6, "text-anchor": "middle" }, text));
  }
  return { svg, toX, toY, bottom: height - bottom, top, right: width - right, left };
}

function steps(points, end) {
  return points.map(([x, y], i) => (i ? `H${x}V${y}` : `M${x} ${y}`)).join("") + `H${end}`;
}

function drawPicture() {
  const box = byId("picture");
  const last = Math.max(rows.length - 1, 1);
  const height = box.clientWidth < 700 ? 320 : 440;
  const made = plot(Math.max(box.clientWidth, 320), height, [0, last], [meta.low, meta.high]);
  const { svg, toX, toY } = made;
  svg.setAttribute("aria-label", "val_bpb of every experiment; the table below has the figures");
  const add = (path, className, width) =>
    svg.append(drawn("path", { d: path, class: className, "stroke-width": width }));

  const spots = []; // what the pointer finds: [x, y, row]
  const place = (row) => {
    const off = row.val_bpb === null ? made.bottom - 6 : Math.max(toY(row.val_bpb), made.top + 4);
    const spot = [toX(row.number), off, row];
    spots.push(spot);
    return spot;
  };
  const size = rows.length > 2000 ? 3 : rows.length > 300 ? 4.5 : 7;
  let dots = "", beyond = "", crashes = "", unscored = "";
  const kept = [];
  for (const row of rows) {
    const [x, y] = place(row).map((v) => (typeof v === "number" ? v.toFixed(1) : v));
    if (row.status === "keep") kept.push(row);
    else if (row.status === "crash") crashes += `M${x} ${y}v10`;
    else if (row.val_bpb === null) unscored += `M${x} ${y}v10`;
    else if (row.val_bpb > meta.high) beyond += `M${x - 3} ${+y + 5}l3 -5l3 5z`;
    else dots += `M${x} ${y}h0`;
  }
  const scored = kept.filter((row) => row.val_bpb !== null);
  if (scored.length) {
    const points = scored.map((row) => [toX(row.number), toY(row.val_bpb)]);
    if (meta.sigma) {
      const wide = Math.abs(toY(2 * meta.sigma) - toY(0));
      const over = steps(points.map(([x, y]) => [x, y - wide]), made.right);
      let under = ""; // the same line, lower and back
      for (let i = points.length - 1; i >= 0; i--) under += `V${points[i][1] + wide}H${points[i][0]}`;
      add(`${over}${under}z`, "band");
    }
    add(`M${made.left} ${points[0][1]}H${made.right}`, "baseline", 1);
  }
  add(dots, "dots discard", size);
  add(beyond, "discard", 1.2);
  add(crashes, "crash", 1);
  add(unscored, "discard", 1);
  const held = scored.filter((row) => row.holdout_bpb !== null);
  if (held.length && meta.shift !== null) {
    const points = held.map((row) => [toX(row.number), toY(row.holdout_bpb - meta.shift)]);
    add(steps(points, made.right), "holdout");
  }
  if (scored.length) {
    add(steps(scored.map((row) => [toX(row.number), toY(row.val_bpb)]), made.right), "stairs");
  }
  for (const row of scored) {
    const className = row.provisional ? "kept provisional" : "kept";
    const at = { cx: toX(row.number), cy: toY(row.val_bpb), r: 4.5, class: className };
    svg.append(drawn("circle", at));
  }
  box.querySelector("svg")?.remove();
  box.prepend(svg);
  point(box, svg, spots);
}

// Says what the experiment nearest to the pointer was; a click opens it.
function point(box, svg, spots) {
  const hint = byId("hint");
  const ring = drawn("circle", { r: 8, class: "pointer", visibility: "hidden" });
  svg.append(ring);
  let found = null;
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const x = event.clientX - frame.left, y = event.clientY - frame.top;
    // The pointer reaches 40 pixels far; keeps come before what lies around them.
    let least = 40;
    found = null;
    for (const spot of spots) {
      const kept = spot[2].status === "keep" ? 6 : 0;
      const distance = Math.hypot(spot[0] - x, spot[1] - y) - kept;
      if (distance < least) [least, found] = [distance, spot];
    }
    hint.hidden = !found;
    ring.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return;
    const row = found[2];
    ring.setAttribute("cx", found[0]);
    ring.setAttribute("cy", found[1]);
    const score = row.val_bpb === null ? "" : ` · ${fixed(row.val_bpb, 6)}`;
    const delta = row.delta === null ? "" : ` (${signed(row.delta)} to the tip)`;
    hint.replaceChildren(
      element("strong", row.status, `${row.number} ${label(row)}${score}`),
      delta,
      element("div", "", row.hypothesis),
    );
    hint.style.left = `${Math.max(0, Math.min(found[0] + 14, frame.width - hint.offsetWidth))}px`;
    const above = found[1] + 18 + hint.offsetHeight > frame.height;
    hint.style.top = `${above ? found[1] - hint.offsetHeight - 14 : found[1] + 14}px`;
  });
  svg.addEventListener("pointerleave", () => {
    hint.hidden = true;
    ring.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("click", () => found && show(found[2].number));
}

// ---- the table

const COLUMNS = [
  { key: "number", title: "n", number: true },
  { key: "commit", title: "commit", text: (row) => row.commit.slice(0, 7) },
  { key: "val_bpb", title: "val_bpb", number: true, text: (row) => fixed(row.val_bpb, 6) },
  { key: "delta", title: "to the tip", number: true, text: (row) => signed(row.delta) },
  { key: "memory", title: "GB", number: true, text: (row) => fixed(row.memory, 1) },
  { key: "status", title: "status", text: label },
  { key: "family", title: "family" },
  { key: "researcher", title: "researcher" },
  { key: "seconds", title: "seconds", number: true, text: (row) => fixed(row.seconds, 0) },
  { key: "hypothesis", title: "hypothesis", wide: true },
];

function chosenRows() {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = rows.filter(
    (row) =>
      (!view.status || label(row) === view.status) &&
      (!view.family || row.family === view.family) &&
      words.every((word) => row.words.includes(word)),
  );
  const key = view.column, sign = view.down ? -1 : 1;
  // What has no value stands last, whichever way the rest is sorted.
  return chosen.sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === y) return (a.number - b.number) * sign;
    if (x === null || y === null) return x === null ? 1 : -1;
    return (x < y ? -1 : 1) * sign;
  });
}

function render() {
  const chosen = chosenRows();
  const pages = Math.max(Math.ceil(chosen.length / PAGE), 1);
  view.page = Math.min(Math.max(view.page, 0), pages - 1);
  const from = view.page * PAGE;
  const here = chosen.slice(from, from + PAGE);
  const body = document.createDocumentFragment();
  for (const row of here) {
    const line = element("tr", "");
    line.id = `row-${row.number}`;
    for (const column of COLUMNS) {
      const text = column.text ? column.text(row) : row[column.key];
      const kind = column.number ? "number" : column.wide ? "text" : "";
      const cell = element("td", column.key === "status" ? row.status : kind);
      if (column.key === "number") {
        const button = element("button", "", String(text));
        button.setAttribute("aria-expanded", opened.has(row.number));
        button.addEventListener("click", () => toggle(row, line, button));
        cell.append(button);
      } else {
        cell.append(text);
      }
      line.append(cell);
    }
    body.append(line);
    if (opened.has(row.number)) body.append(openedRow(row));
  }
  byId("experiments").tBodies[0].replaceChildren(body);
  byId("shown").textContent = chosen.length
    ? `${from + 1}–${from + here.length} of ${chosen.length.toLocaleString("en")}`
    : "none";
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page === pages - 1;
  for (const cell of document.querySelectorAll("#experiments th")) {
    const mine = cell.dataset.key === view.column;
    cell.setAttribute("aria-sort", mine ? (view.down ? "descending" : "ascending") : "none");
    cell.querySelector("span").textContent = mine ? (view.down ? " ↓" : " ↑") : "";
  }
}

function toggle(row, line, button) {
  if (opened.delete(row.number)) line.nextElementSibling.remove();
  else {
    opened.add(row.number);
    line.after(openedRow(row));
  }
  button.setAttribute("aria-expanded", opened.has(row.number));
}

// Goes to an experiment's row and opens it.
function show(number) {
  if (!rows[number]) return;
  Object.assign(view, { search: "", status: "", family: "" });
  for (const id of ["search", "status", "family"]) byId(id).value = "";
  opened.add(number);
  view.page = Math.floor(chosenRows().findIndex((row) => row.number === number) / PAGE);
  render();
  byId(`row-${number}`).scrollIntoView({ block: "start" });
}

// ---- an opened row

function openedRow(row) {
  const cell = element("td", "");
  cell.colSpan = COLUMNS.length;
  const crash = row.crash ? element("span", "crash", `${row.crash}: `) : "";
  const why = element("p", "", element("strong", "", "Why: "), crash, row.reason || "–");
  const holdout = row.holdout_bpb === null ? "" : ` Holdout ${fixed(row.holdout_bpb, 6)}.`;
  cell.append(element("p", "text", row.hypothesis), why);
  if (holdout) cell.append(element("p", "", holdout));
  const rest = element("div", "", element("p", "faint", "Unpacking …"));
  cell.append(rest);
  details(row).then(
    (found) => rest.replaceChildren(...(found ? detailParts(found) : leftOut(row))),
    (error) => rest.replaceChildren(element("p", "crash", `Cannot be unpacked: ${error}`)),
  );
  return element("tr", "opened", cell);
}

function leftOut(row) {
  const command = `git show ${row.commit}`;
  return [
    element("p", "faint", "Left out to keep this file small; the repository has it:"),
    element("pre", "", command),
  ];
}

function detailParts(found) {
  const parts = [];
  if (found.notes) parts.push(element("p", "text", found.notes));
  if (found.runs.length > 1) parts.push(runsTable(found.runs));
  if (found.curve.length > 1) {
    parts.push(element("strong", "", "Training loss in bits, by seconds"), curve(found.curve));
  }
  if (found.failed) parts.push(element("p", "crash", found.failed));
  parts.push(element("strong", "", "Diff"), text(found.diff, "No difference.", diffClass));
  parts.push(element("strong", "", "End of the log"), text(found.log, "No log."));
  return parts;
}

function runsTable(runs) {
  const table = element("table", "");
  const titles = ["run", "commit", "seed", "val_bpb", "seconds", ""];
  table.append(element("tr", "", ...titles.map((title) => element("th", "", title))));
  for (const run of runs) {
    const cells = [run.role, run.commit, run.seed, fixed(run.val_bpb, 6), fixed(run.seconds, 0)];
    const all = [...cells, run.end].map((value) => element("td", "", String(value)));
    table.append(element("tr", "", ...all));
  }
  return element("div", "scroll", table);
}

function curve(points) {
  const losses = points.map(([, loss]) => loss);
  // The first steep fall is left out of the scale, or the rest would look level.
  const [low, high] = [Math.min(...losses), Math.max(...losses.slice(losses.length >> 3))];
  const margin = (high - low) * 0.05 || 0.01;
  const made = plot(520, 170, [0, points.at(-1)[0]], [low - margin, high + margin]);
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${made.toX(x)} ${made.toY(y)}`).join("");
  made.svg.append(drawn("path", { d: path, class: "stairs" }));
  made.svg.setAttribute("aria-label", `training loss, from ${losses[0]} to ${losses.at(-1)} bits`);
  made.svg.setAttribute("width", 520);
  return made.svg;
}

function diffClass(line) {
  if (line.startsWith("@@")) return "hunk";
  if (/^(\+\+\+|---|diff |index )/.test(line)) return "faint";
  return line[0] === "+" ? "added" : line[0] === "-" ? "removed" : "";
}

function text(content, empty, classOf) {
  if (!content) return element("p", "faint", empty);
  if (!classOf) return element("pre", "", content);
  const lines = content.split("\n");
  const more = lines.length > LINES ? [element("span", "faint", "… and more lines")] : [];
  return element(
    "pre", "", ...lines.slice(0, LINES).map((line) => element("span", classOf(line), line)), ...more,
  );
}

// ---- start

function choices(id, values) {
  for (const value of values) byId(id).append(new Option(value, value));
  byId(id).addEventListener("change", (event) => {
    Object.assign(view, { [id]: event.target.value, page: 0 });
    render();
  });
}

function fromAddress() {
  if (/^#\d+$/.test(location.hash)) show(Number(location.hash.slice(1)));
}

async function start() {
  const data = await unpack("rows");
  meta = data.meta;
  // Rows travel as one list a column, which packs better.
  const keys = Object.keys(data.columns);
  rows = data.columns.number.map((_, i) =>
    Object.fromEntries(keys.map((key) => [key, data.columns[key][i]])),
  );
  for (const row of rows) {
    const words = [row.hypothesis, row.commit, row.reason, row.crash, row.researcher, row.family];
    row.words = words.join("\n").toLowerCase();
  }
  const head = byId("experiments").tHead.rows[0];
  for (const column of COLUMNS) {
    const button = element("button", "", column.title, element("span", ""));
    const cell = element("th", column.number ? "number" : "", button);
    cell.dataset.key = column.key;
    button.addEventListener("click", () => {
      view.down = view.column === column.key ? !view.down : column.key === "number";
      Object.assign(view, { column: column.key, page: 0 });
      render();
    });
    head.append(cell);
  }
  choices("status", [...new Set(rows.map(label))].sort());
  choices("family", [...new Set(rows.map((row) => row.family))].filter(Boolean).sort());
  byId("search").addEventListener("input", (event) => {
    Object.assign(view, { search: event.target.value, page: 0 });
    render();
  });
  for (const [id, by] of [["previous", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      view.page += by;
      render();
    });
  }
  drawPicture();
  const picture = byId("picture");
  let width = picture.clientWidth;
  new ResizeObserver(() => {
    if (!picture.isConnected || width === picture.clientWidth) return;
    width = picture.clientWidth;
    drawPicture();
  }).observe(picture);
  render();
  fromAddress();
  addEventListener("hashchange", fromAddress);
}

start().catch((error) => {
  byId("shown").textContent = `This browser cannot unpack the table (${error}).`;
});
