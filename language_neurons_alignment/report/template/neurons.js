"use strict";
const byId = (id) => document.getElementById(id);
const kept = new Map();

/** The content of a chunk, unpacked once. */
function chunk(id) {
  if (!kept.has(id)) kept.set(id, unpack(byId(id).textContent));
  return kept.get(id);
}

async function unpack(letters) {
  const binary = atob(letters);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** An element with a class, and texts or elements in it; texts stay texts. */
function make(kind, className, ...parts) {
  const element = document.createElement(kind);
  if (className) element.className = className;
  element.append(...parts.filter((part) => part !== null && part !== undefined));
  return element;
}

/** A token as it stands in the vocabulary: spaces at its ends and line breaks can be seen. */
function token(text) {
  const shown = make("span", "token");
  shown.dir = "auto";
  const start = text.length - text.trimStart().length, end = Math.max(start, text.trimEnd().length);
  mark(shown, text.slice(0, start));
  shown.append(text.slice(start, end));
  mark(shown, text.slice(end));
  return shown;
}

const SIGNS = { " ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };
function mark(where, spaces) {
  if (spaces) where.append(make("span", "mark", [...spaces].map((one) => SIGNS[one] || "␣").join("")));
}

/** A piece of running text: line breaks get a sign in front, and so does what would not be seen. */
function piece(text) {
  const shown = make("span");
  for (const part of text.split(/([\n\r\t]+)/)) {
    if (/^[\n\r\t]/.test(part)) mark(shown, part);
    else if (part) shown.append(part);
  }
  if (!text) mark(shown, "\u00a0");
  return shown;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
const signed = (value, digits = 3) => `${value < 0 ? "−" : "+"}${Number(Math.abs(value).toPrecision(digits))}`;
const place = (number) => index.neurons.place[number].join(".");
const names = (codes) => codes.map((k) => index.languages[k][1]).join(", ");

let index, order = [], shown = 0, numbers = new Map();
const PAGE = 200;

function strength(number, by, language) {
  const neurons = index.neurons;
  if (by === "margin") return neurons.margin[number];
  if (by === "most") return neurons.most[number];
  const own = language === null ? neurons.own[number] : [language];
  const from = own.length ? own : index.languages.map((_, k) => k);
  if (by === "fires") return Math.max(...from.map((k) => neurons.fires[number][k]));
  return Math.max(...from.map((k) => Math.abs(neurons.effect[number][k] ?? 0)));
}

function filter() {
  const neurons = index.neurons, wanted = byId("by-token").value.trim().toLowerCase();
  const language = byId("by-language").value === "" ? null : Number(byId("by-language").value);
  const kind = byId("by-class").value, by = byId("by-order").value;
  const first = byId("by-first").value === "" ? 0 : Number(byId("by-first").value);
  const last = byId("by-last").value === "" ? Infinity : Number(byId("by-last").value);
  order = [];
  for (let n = 0; n < neurons.kind.length; n++) {
    const layer = neurons.place[n][0];
    if (layer < first || layer > last || (kind && neurons.kind[n] !== kind)) continue;
    if (language !== null && !neurons.own[n].includes(language)) continue;
    if (wanted && place(n) !== wanted && !neurons.words[n].includes(wanted)) continue;
    order.push(n);
  }
  if (by !== "place") {
    const value = new Map(order.map((n) => [n, strength(n, by, language)]));
    order.sort((a, b) => value.get(b) - value.get(a) || a - b);
  }
  byId("count").textContent = `${order.length.toLocaleString("en")} of ${neurons.kind.length.toLocaleString("en")} neurons`;
  byId("list").replaceChildren();
  shown = 0;
  more();
}

function more() {
  const by = byId("by-order").value, language = byId("by-language").value;
  const rows = order.slice(shown, shown + PAGE).map((n) => {
    const neurons = index.neurons, link = make("a");
    link.href = `#${place(n)}`;
    link.append(make("span", "name", place(n)));
    link.append(make("span", "of", neurons.own[n].length > 3 ? `${neurons.own[n].length} languages` : names(neurons.own[n]) || neurons.kind[n]));
    const what = by === "place" ? "margin" : by;
    const value = strength(n, what, language === "" ? null : Number(language));
    link.append(make("span", "value", what === "fires" ? percent(value) : what === "effect" ? `${value.toPrecision(2)} %` : value.toPrecision(3)));
    const says = make("span", "says");
    neurons.says[n].forEach((text, i) => says.append(i ? " " : "", token(text)));
    link.append(says);
    return make("li", "", link);
  });
  byId("list").append(...rows);
  shown += rows.length;
  byId("more").hidden = shown >= order.length;
  current();
}

function current() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  for (const link of byId("list").querySelectorAll("a")) {
    if (link.hash.slice(1) === wanted) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

function histogram(counts) {
  const most = Math.max(1, ...counts), drawn = make("div", "histogram");
  drawn.setAttribute("role", "img");
  const all = counts.reduce((a, b) => a + b, 0);
  drawn.setAttribute("aria-label", counts.map((count, bin) => `${index.bins[bin]}: ${count}`).join("; "));
  counts.forEach((count, bin) => {
    const bar = make("i");
    bar.style.height = `${Math.round((100 * Math.log1p(count)) / Math.log1p(most))}%`;
    bar.title = `activation ${index.bins[bin]}: ${count} of ${all} tokens`;
    drawn.append(bar);
  });
  return drawn;
}

function bar(value, most) {
  const drawn = make("i", value < 0 ? "bar minus" : "bar");
  drawn.style.width = `${Math.min(5, (5 * Math.abs(value)) / (most || 1)).toFixed(2)}rem`;
  return drawn;
}

function tokens(title, rows) {
  const most = Math.max(...rows.map((row) => Math.abs(row[1])), 0);
  const body = make("tbody", "", ...rows.map(([text, logit, language, script]) =>
    make("tr", "", make("td", "", token(text)), make("td", "number", signed(logit)), make("td", "bars", bar(logit, most)),
      make("td", "quiet", language ?? (script === "none" ? "" : script)))));
  return make("div", "", make("h3", "", title), make("table", "", body));
}

async function contexts(detail, k) {
  const blocks = [];
  for (const [number, first, at, position, activation, levels] of detail.contexts[k]) {
    const some = await chunk(`text-${k}-${Math.floor(number / index.perChunk)}`);
    const [record, answer, pieces] = some[number % index.perChunk];
    const text = make("div", "text");
    text.dir = "auto";
    levels.forEach((level, i) => {
      const part = piece(pieces[first + i]);
      part.style.backgroundColor = level ? `rgba(var(--hot), ${(0.75 * Math.min(100, level)) / 100})` : "";
      part.title = `${Number(((level * activation) / 100).toPrecision(3))}`;
      if (i === at) part.className = "at";
      text.append(part);
    });
    const value = make("span", "value", String(Number(activation.toPrecision(4))));
    value.title = `record ${record}, answer ${answer}, position ${position}`;
    blocks.push(make("div", "context", value, text));
  }
  return blocks;
}

async function language(number, detail, k) {
  const [code, name] = index.languages[k], neurons = index.neurons;
  const head = make("h4", "", make("b", "", name), make("span", "", `fires on ${percent(neurons.fires[number][k])}`));
  const found = detail.effect[k];
  if (found) {
    const [change, low, high, controlLow, controlHigh, first] = found;
    let told = `off: perplexity ${signed(change)} % [${signed(low)}, ${signed(high)}]`;
    if (controlLow !== null) told += `, ${change >= controlLow && change <= controlHigh ? "within" : "outside"} control [${signed(controlLow)}, ${signed(controlHigh)}]`;
    if (first !== null) told += `; first order ${signed(first)} %`;
    head.append(make("span", "", told));
  }
  if (detail.cosine[k] !== null) head.append(make("span", "", `points to it: ${signed(detail.cosine[k], 2)}`));
  const block = make("section", neurons.own[number].includes(k) ? "language own" : "language", head, histogram(detail.histogram[k]));
  block.lang = code;
  block.append(...(await contexts(detail, k)));
  return block;
}

async function card() {
  const wanted = decodeURIComponent(location.hash.slice(1)), where = byId("card");
  current();
  if (!wanted || wanted === "card") return;
  const number = numbers.get(wanted);
  if (number === undefined) {
    where.replaceChildren(make("p", "", `There is no neuron ${wanted} on this page.`));
    return;
  }
  const detail = (await chunk(`neuron-${Math.floor(number / index.perChunk)}`))[number % index.perChunk];
  const neurons = index.neurons, kind = neurons.kind[number];
  const facts = make("p", "facts", make("b", "", kind), neurons.own[number].length ? `: ${names(neurons.own[number])}` : "",
    ` · margin ${signed(neurons.margin[number])}`, detail.expert === null ? "" : ` · expert ${detail.expert}`);
  const parts = [make("h2", "", `Neuron ${wanted}`), facts];
  if (detail.positive !== null && detail.positive < 1) {
    parts.push(make("p", "facts", `Its activation is multiplied by a factor, which is below 0 on ${percent(1 - detail.positive)} of the tokens on which it fires: there it does the reverse, and promotes what stands on the right.`));
  }
  parts.push(make("div", "both", tokens("Promotes", detail.promotes), tokens("Suppresses", detail.suppresses)));
  parts.push(make("h3", "", "Fires on"));
  const ranked = index.languages.map((_, k) => k).sort((a, b) =>
    neurons.own[number].includes(b) - neurons.own[number].includes(a) || neurons.fires[number][b] - neurons.fires[number][a]);
  for (const k of ranked) parts.push(await language(number, detail, k));
  const all = detail.scripts.reduce((sum, one) => sum + one[1], 0);
  if (all) {
    const told = [...detail.scripts].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name === "none" ? "no letters" : name} ${percent(count / all)}`);
    parts.push(make("h3", "", "Tokens that it fires on, by script"), make("p", "", told.join(" · ")));
  }
  if (detail.near.length) {
    const rows = detail.near.map(([layer, at, cosine, together]) => {
      const link = make("a", "", `${layer}.${at}`);
      link.href = `#${layer}.${at}`;
      return make("tr", "", make("td", "", link), make("td", "number", signed(cosine)), make("td", "number", together === null ? "–" : percent(together)));
    });
    parts.push(make("h3", "", "Neurons that write nearly the same"), make("table", "near",
      make("thead", "", make("tr", "", make("th", "", "neuron"), make("th", "number", "cosine"), make("th", "number", "fire together"))),
      make("tbody", "", ...rows)));
  }
  if (decodeURIComponent(location.hash.slice(1)) !== wanted) return;
  where.replaceChildren(...parts);
  document.title = `${wanted} – ${document.title.split(" – ").slice(-2).join(" – ")}`;
  document.documentElement.dataset.card = wanted;
}

async function begin() {
  if (!window.DecompressionStream) {
    byId("card").textContent = "This browser cannot unpack the page's data (DecompressionStream): open it in a newer one.";
    return;
  }
  index = await chunk("index");
  const neurons = index.neurons;
  neurons.kind = neurons.kind || [];
  neurons.place = neurons.place || [];
  neurons.place.forEach((at, n) => numbers.set(at.join("."), n));
  const choose = (id, values) => values.forEach(([value, name]) => {
    const option = make("option", "", name);
    option.value = value;
    byId(id).append(option);
  });
  choose("by-language", index.languages.map(([, name], k) => [k, name]));
  choose("by-class", [...new Set(neurons.kind)].map((kind) => [kind, kind]));
  const last = Math.max(0, ...neurons.place.map((at) => at[0]));
  byId("by-first").max = byId("by-last").max = last;
  byId("by-last").placeholder = last;
  byId("by-first").placeholder = 0;
  if (!neurons.effect?.some((one) => one.some((value) => value !== null))) byId("by-order").querySelector("[value=effect]").remove();
  byId("filters").addEventListener("input", filter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(filter));
  byId("more").addEventListener("click", more);
  window.addEventListener("hashchange", card);
  filter();
  if (!location.hash && order.length) history.replaceState(null, "", `#${place(order[0])}`);
  await card();
  performance.mark("drawn");
  document.documentElement.dataset.drawn = "true";
}

begin();
