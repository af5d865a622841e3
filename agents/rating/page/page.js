"use strict";
// The page of a rater: asks the server for a question, shows it, sends the answer, and draws the progress.

const $ = (selector, from = document) => from.querySelector(selector);
const LETTERS = "ABCDEFGH";
const MEASURES = { "val/miou": "mean IoU on held-out photos", "val/foreseen": "share of check answers that the policy foresaw" };

const store = {
  get: (key) => { try { return localStorage.getItem(`rate-${key}`); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(`rate-${key}`, value); } catch { /* private window */ } },
};
const state = { rater: store.get("rater") || "", question: null, shown: 0, order: [], stars: [], tied: [], busy: false, classes: [], updates: -1 };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const say = (text) => { $("#message").textContent = text; };

async function post(path, content) {
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ rater: state.rater, ...content }) });
      const text = await response.text();
      let given;
      try { given = JSON.parse(text); } catch { given = { error: text }; }
      if (response.ok) return given;
      if (response.status !== 503 || attempt > 4) throw Object.assign(new Error(given.error || response.statusText), { final: true });
    } catch (error) {
      if (error.final) throw error;
      // The answer may have come through and only its acknowledgement been lost: sent again, it counts once.
      say("The server cannot be reached; trying again …");
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** attempt, 8000)));
  }
}

async function act(work) {
  if (state.busy) return;
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  for (const button of document.querySelectorAll("#answers button")) button.disabled = true;
  try { await work(); say(""); } catch (error) { say(error.message); }
  state.busy = false;
  document.body.removeAttribute("aria-busy");
  if (state.question) updateAnswers();
}

const next = async () => show(await post("/api/question", {}));

function send(answer) {
  const { id, attempt } = state.question;
  const seconds = Math.min((performance.now() - state.shown) / 1000, 86400);
  return act(async () => { await post("/api/answer", { question: id, attempt, answer, seconds }); await next(); });
}

const skip = () => send({ skip: true });
const undo = () => act(async () => { await post("/api/undo", {}); await next(); });
const better = (k) => send({ order: [[k], [1 - k]] });
const same = () => send({ order: [[0, 1]] });
const sendStars = () => { if (state.stars.some((stars) => stars !== null)) send({ stars: state.stars }); };
function sendOrder() {
  const groups = [];
  state.order.forEach((k, place) => { if (place && state.tied[k]) groups[groups.length - 1].push(k); else groups.push([k]); });
  send({ order: groups });
}

// Showing a question ------------------------------------------------------------------------------------------------

function picture(source, kind) { return element("img", { src: source, class: kind, alt: "", draggable: "false" }); }

function stack(option) {
  const { photo, part, size } = state.question;
  const base = picture(photo, "photo");
  base.width = size[1];
  base.height = size[0];
  const layers = option ? [picture(option.overlay, "overlay"), picture(option.outline, "outline")] : [];
  return element("div", { class: "stack" }, base, ...layers, part ? picture(part, "part") : null);
}

function prompt() {
  const { kind, part, options } = state.question;
  if (kind === "stars") {
    const what = part ? "the outlined part" : "the photo";
    return options.length > 1 ? `How well do these label maps fit ${what}?` : `How much of ${what} does this label map have right?`;
  }
  if (kind === "pair") return part ? "Which label map is better in the outlined part?" : "Which label map is better?";
  return "Put the label maps in order, the best first";
}

function show(question) {
  const count = question.options.length;
  state.question = question;
  state.stars = Array(count).fill(null);
  state.order = [...Array(count).keys()];
  state.tied = Array(count).fill(false);
  $("#asking").dataset.question = `${question.id}-${question.attempt}`;
  $("#asking").className = `of-${question.kind} cards-${count}`;
  $("#prompt").textContent = prompt();
  $("#photo .stack").replaceWith(stack(null));
  drawOptions();
  drawAnswers();
  drawHelp();
  $("#prompt").focus({ preventScroll: true });
  state.shown = performance.now();
}

function drawOptions() {
  const focused = document.activeElement && document.activeElement.closest(".option");
  const kept = focused && focused.dataset.k;
  $("#options").replaceChildren(...state.order.map((k, place) => {
    const option = state.question.options[k], kind = state.question.kind;
    const letter = LETTERS[k];
    const inside = option.classes.length <= 2 ? option.classes.join(", ") : "";
    const rank = kind === "ranking" ? `${state.tied[k] && place ? "as good as the one before" : `place ${place + 1}`}` : "";
    const title = element("div", { class: "title" }, `${letter}${state.question.part && inside ? ` – there: ${inside}` : ""}`, element("small", {}, rank));
    const card = element("li", { class: "option", tabindex: "0", "data-k": k, "aria-label": `label map ${letter}${inside ? `, ${inside}` : ""}${rank ? `, ${rank}` : ""}` }, title, stack(option));
    if (kind === "stars") card.append(starButtons(k));
    if (kind === "ranking") {
      card.append(element("div", { class: "moves" },
        element("button", { type: "button", "aria-label": `${letter} is better`, onclick: () => move(k, -1), disabled: place === 0 }, "◀ ", element("span", {}, "better")),
        element("button", { type: "button", "aria-pressed": String(state.tied[k]), "aria-label": `${letter} is as good as the one before`, onclick: () => tie(k), disabled: place === 0 }, "="),
        element("button", { type: "button", "aria-label": `${letter} is worse`, onclick: () => move(k, 1), disabled: place === state.order.length - 1 }, element("span", {}, "worse"), " ▶")));
      makeDraggable(card, k);
    }
    return card;
  }));
  if (kept !== null && kept !== undefined) $(`.option[data-k="${kept}"]`).focus({ preventScroll: true });
}

function starButtons(k) {
  return element("div", { class: "stars", role: "group", "aria-label": `stars of ${LETTERS[k]}` }, ...[1, 2, 3, 4, 5].map((stars) => {
    const on = state.stars[k] !== null && stars <= state.stars[k];
    return element("button", { type: "button", class: on ? "on" : null, "aria-pressed": String(state.stars[k] === stars), "aria-label": `${stars} of 5 stars`, onclick: () => rate(k, stars) }, on ? "★" : "☆", element("small", {}, String(stars)));
  }));
}

function rate(k, stars) {
  if (state.busy) return;
  state.stars[k] = stars;
  drawOptions();
  updateAnswers();
  if (state.stars.length === 1) { sendStars(); return; }
  const unrated = state.stars.indexOf(null);
  focusOption(unrated < 0 ? k : unrated);
}

const focusOption = (k) => $(`.option[data-k="${k}"]`).focus();

function move(k, by) {
  const place = state.order.indexOf(k), other = place + by;
  if (state.busy || other < 0 || other >= state.order.length) return;
  [state.order[place], state.order[other]] = [state.order[other], state.order[place]];
  drawOptions();
  focusOption(k);
}

function tie(k) {
  if (state.busy || state.order[0] === k) return;
  state.tied[k] = !state.tied[k];
  drawOptions();
  focusOption(k);
}

function makeDraggable(card, k) {
  const handle = $(".stack", card);
  handle.addEventListener("pointerdown", (down) => {
    if (state.busy || down.button !== 0) return;
    down.preventDefault();
    card.classList.add("held");
    const over = (event) => {
      const target = document.elementFromPoint(event.clientX, event.clientY);
      const other = target && target.closest(".option");
      return other && other !== card ? Number(other.dataset.k) : null;
    };
    const stop = (event) => {
      removeEventListener("pointerup", stop);
      removeEventListener("pointercancel", stop);
      card.classList.remove("held");
      const onto = event.type === "pointerup" ? over(event) : null;
      if (onto === null) return;
      const from = state.order.indexOf(k), to = state.order.indexOf(onto);
      state.order.splice(from, 1);
      state.order.splice(to, 0, k);
      drawOptions();
      focusOption(k);
    };
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
  });
}

const button = (text, key, act, primary = false) => element("button", { type: "button", class: primary ? "primary" : null, onclick: act }, `${text} `, element("kbd", {}, key));

function drawAnswers() {
  const { kind, options } = state.question;
  const own = kind === "pair" ? [button("A is better", "←", () => better(0)), button("same", "↓", same), button("B is better", "→", () => better(1))]
    : kind === "stars" ? (options.length > 1 ? [button("Send", "Enter", sendStars, true)] : [])
    : [button("Send", "Enter", sendOrder, true)];
  $("#answers").replaceChildren(...own, button("skip", "S", skip), button("undo", "Z", undo));
  updateAnswers();
}

function updateAnswers() {
  for (const each of document.querySelectorAll("#answers button")) each.disabled = state.busy;
  const primary = $("#answers .primary");
  if (primary && state.question.kind === "stars") primary.disabled = state.busy || state.stars.every((stars) => stars === null);
}

function drawHelp() {
  const kind = state.question.kind;
  const own = {
    pair: [["←", "A is better"], ["→", "B is better"], ["↓ or =", "both are as good"]],
    stars: [["1 … 5", "stars of the label map in focus"], ["← →", "another label map"], ["Enter", "send"]],
    ranking: [["← →", "another label map"], ["Shift ← →", "moves the one in focus"], ["=", "as good as the one before"], ["Enter", "send"]],
  }[kind];
  const all = [...own, ["S", "skip"], ["Z", "take the last answer back"], ["O", "label maps on and off"], ["L", "outlines on and off"], ["[ ]", "opacity"], ["?", "this list"]];
  $("#help tbody").replaceChildren(...all.map(([key, text]) => element("tr", {}, element("td", {}, element("kbd", {}, key)), element("td", {}, text))));
}

// Looking -----------------------------------------------------------------------------------------------------------

const sheet = new CSSStyleSheet();
document.adoptedStyleSheets = [sheet];

function view() {
  const on = (id) => $(id).getAttribute("aria-pressed") === "true";
  const opacity = on("#overlays") ? Number($("#opacity").value) / 100 : 0;
  sheet.replaceSync(`.stack img.overlay { opacity: ${opacity}; } .stack img.outline { display: ${on("#outlines") ? "block" : "none"}; }`);
}

function toggle(id) {
  const pressed = $(id).getAttribute("aria-pressed") === "true";
  $(id).setAttribute("aria-pressed", String(!pressed));
  view();
}

function opacity(by) {
  $("#opacity").value = Number($("#opacity").value) + by;
  view();
}

function help() {
  const hidden = !$("#help").hidden;
  $("#help").hidden = hidden;
  $("#keys").setAttribute("aria-expanded", String(!hidden));
}

// Keys --------------------------------------------------------------------------------------------------------------

function step(by) {
  const focused = document.activeElement.closest && document.activeElement.closest(".option");
  const place = focused ? state.order.indexOf(Number(focused.dataset.k)) + by : by > 0 ? 0 : state.order.length - 1;
  focusOption(state.order[Math.max(0, Math.min(state.order.length - 1, place))]);
}

function inFocus() {
  const focused = document.activeElement.closest && document.activeElement.closest(".option");
  return focused ? Number(focused.dataset.k) : state.stars.length === 1 ? 0 : Math.max(0, state.stars.indexOf(null));
}

addEventListener("keydown", (event) => {
  if (!state.question || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("input") && !(event.target.type === "range" && !event.key.startsWith("Arrow"))) return;
  const onButton = event.target.matches("button, a");
  const kind = state.question.kind, key = event.key;
  const keys = {
    s: skip, z: undo, o: () => toggle("#overlays"), l: () => toggle("#outlines"), "[": () => opacity(-10), "]": () => opacity(10), "?": help,
  };
  if (kind === "pair") Object.assign(keys, { ArrowLeft: () => better(0), ArrowRight: () => better(1), ArrowDown: same, "=": same });
  else Object.assign(keys, { ArrowLeft: () => step(-1), ArrowRight: () => step(1) });
  if (kind === "stars") {
    for (const stars of [1, 2, 3, 4, 5]) keys[stars] = () => rate(inFocus(), stars);
    if (!onButton) keys.Enter = sendStars;
  }
  if (kind === "ranking") {
    if (event.shiftKey) Object.assign(keys, { ArrowLeft: () => move(inFocus(), -1), ArrowRight: () => move(inFocus(), 1) });
    keys["="] = () => tie(inFocus());
    if (!onButton) keys.Enter = sendOrder;
  }
  const act = keys[key.length === 1 ? key.toLowerCase() : key];
  if (!act) return;
  event.preventDefault();
  act();
});

// Progress ----------------------------------------------------------------------------------------------------------

function progress(status) {
  if (state.classes.join() !== status.classes.join()) {
    state.classes = status.classes;
    $("#legend").replaceChildren(...status.classes.map((name, c) => element("li", {}, element("img", { src: `/pictures/legend/${c}.png`, alt: "" }), name)));
  }
  const mine = status.raters[state.rater] || { answers: 0, skips: 0, queries: 0, seconds: 0 };
  const rows = [
    ["your answers", mine.answers], ["of these skipped", mine.skips], ["label maps that you judged", mine.queries], ["seconds an answer", mine.answers ? mine.seconds.toFixed(1) : "–"],
    ["answers of all raters", status.answers], ["updates of the policy", `${status.updates} of ${status.wanted}`],
  ];
  $("#counts").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]));
  drawCurve(status.curve);
  $("#agreement").textContent = status.agreement.map((two) => `${two.first} and ${two.second}: ${Math.round(100 * two.equal)} % equal in ${two.questions} common questions${two.kappa === null ? "" : `, κ ${two.kappa.toFixed(2)}`}${two.tau === null ? "" : `, τ ${two.tau.toFixed(2)}`}`).join("; ");
  if (status.error) say(`The policy learns no more: ${status.error}. Answers are still kept.`);
  const measured = status.curve.length;
  $("#held-out").hidden = !status.held_out;
  if (state.updates !== measured) {
    state.updates = measured;
    const fresh = [...Array(status.held_out).keys()].map((number) => element("img", { src: `/pictures/held-out/${number}.jpg?${measured}-${Date.now()}`, alt: `held-out photo ${number + 1} under the policy's label map`, loading: "lazy" }));
    $("#held-out > div").replaceChildren(...fresh);
  }
}

function drawCurve(curve) {
  const name = Object.keys(MEASURES).find((each) => curve.some((point) => each in point));
  $("#curve").hidden = !name;
  if (!name) return;
  const points = curve.filter((point) => name in point), last = points[points.length - 1];
  $("#curve figcaption").textContent = MEASURES[name];
  const svg = $("#curve svg"), most = Math.max(10, last.answers);
  const x = (answers) => 30 + (280 * answers) / most, y = (value) => 100 - 90 * value;
  const make = (kind, attributes, text = "") => { const made = document.createElementNS(svg.namespaceURI, kind); for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value); made.textContent = text; return made; };
  svg.setAttribute("aria-label", `${MEASURES[name]}: ${last[name].toFixed(3)} after ${last.answers} answers`);
  svg.replaceChildren(
    make("path", { class: "axis", d: "M30 10V100H310M30 55H310M30 10H310" }),
    ...[0, 0.5, 1].map((value) => make("text", { x: 24, y: y(value) + 4, "text-anchor": "end" }, String(value))),
    make("text", { x: 30, y: 115 }, "0"), make("text", { x: 310, y: 115, "text-anchor": "end" }, `${most} answers`),
    make("polyline", { class: "line", points: points.map((point) => `${x(point.answers)},${y(point[name])}`).join(" ") }),
    make("circle", { cx: x(last.answers), cy: y(last[name]), r: 3 }),
    make("text", { x: Math.min(x(last.answers), 285), y: y(last[name]) - 8, "text-anchor": "middle" }, last[name].toFixed(3)));
}

// Beginning ---------------------------------------------------------------------------------------------------------

function begin() {
  $("#sign-in").hidden = Boolean(state.rater);
  $("#sitting").hidden = $("#who").hidden = !state.rater;
  $("#name").textContent = state.rater;
  if (!state.rater) { $("#rater").focus(); return; }
  act(next);
}

$("#sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  state.rater = $("#rater").value.trim().replace(/\s+/g, " ");
  store.set("rater", state.rater);
  begin();
});
$("#change").addEventListener("click", () => { state.rater = ""; state.question = null; begin(); });
$("#opacity").addEventListener("input", view);
$("#overlays").addEventListener("click", () => toggle("#overlays"));
$("#outlines").addEventListener("click", () => toggle("#outlines"));
$("#keys").addEventListener("click", help);
new EventSource("/api/events").addEventListener("message", (event) => progress(JSON.parse(event.data)));
view();
begin();
