/* The fleet's page: who waits where, what every store says of itself, and what all of them find. What stores answer is
   text: it goes through textContent, never through markup. */
const EVERY = 1800;
const ID = /^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const at = (id) => document.getElementById(id);

function el(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}
const link = (href, ...content) => Object.assign(el("a", "", ...content), { href });

/** The answer's JSON. Throws with `status`, 0 where there is none. */
async function asked(path, options = {}) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(8000), ...options }).catch(() => null);
  const said = await answer?.json().catch(() => null);
  if (answer?.ok && said) return said;
  throw Object.assign(new Error(said?.detail ?? "The server does not answer"), { status: answer?.status ?? 0 });
}

function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  const [size, unit] = [[86_400, "d"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= size) ?? [1, "s"];
  return Number.isFinite(seconds) ? `${Math.floor(seconds / size)} ${unit}` : "";
}
const number = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en");

/** Put these in the place of what is there, unless it is just that: what has the focus keeps it. */
function show(place, items) {
  const key = items.map((item) => item.outerHTML).join("\n");
  if (place.shown === key) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.href : null;
  place.shown = key;
  place.replaceChildren(...items);
  if (focused) [...place.querySelectorAll("a")].find(({ href }) => href === focused)?.focus();
}

// ---- what is shown

function shardRow({ name, url, answers, error, seen, version, sessions, eventsToday, eventsLastMinute }) {
  const state = el("span", "state", answers ? "answers" : seen ? `silent for ${ago(seen)}:` : "silent:");
  state.dataset.is = answers ? "completed" : "failed";
  state.title = error ?? "";
  const head = el("th", "", link(`${url}/`, name));
  head.scope = "row";
  const figure = (value) => el("td", "right", seen ? number(value ?? 0) : "–");
  const row = el("tr", answers ? "" : "faint", head, el("td", "", state, answers ? "" : el("span", "faint", ` ${error}`)));
  row.append(...["waiting", "active", "failed", "lost"].map((status) => figure(sessions[status])),
    figure(eventsLastMinute), figure(eventsToday), el("td", "right", version ?? "–"));
  row.dataset.answers = answers;
  return row;
}

function waitingRow({ shard, sessionId, link: href, title, project, userId, reason, message, since, isOld }) {
  const name = link(href, title || sessionId);
  name.className = "cut";
  const what = [reason, message].filter(Boolean).join(": ");
  return el("li", isOld ? "faint" : "", el("div", "item row", el("span", "chip", shard), name,
    el("span", "dim cut grow", what), el("span", "dim", [project, userId].filter(Boolean).join(" · ")), el("span", "age", ago(since))));
}

function hitRow({ shard, sessionId, link: href, type, timestamp, marked }) {
  const snippet = marked.map((text, place) => place % 2 ? el("mark", "", text) : text);
  return el("li", "", el("div", "item row", el("span", "chip", shard), link(href, sessionId),
    el("span", "dim grow two-lines", ...snippet), el("span", "faint", type.replaceAll("_", " ")), el("span", "age", ago(timestamp))));
}

const nothing = (words) => el("li", "", el("p", "item dim", words));
const without = (silent, all) => silent.length ? `${silent.length} of ${all} did not answer: ${silent.map(({ shard }) => shard).join(", ")}` : "";

// ---- asking again and again

let timer = 0;
async function look() {
  clearTimeout(timer);
  const begun = Date.now();
  try {
    const [{ shards }, waiting] = await Promise.all([asked("api/fleet"), asked("api/fleet/waiting")]);
    at("login").hidden = !(at("view").hidden = false);
    const missing = without(shards.filter(({ answers }) => !answers).map(({ name }) => ({ shard: name })), shards.length);
    at("silent").hidden = !missing;
    if (at("silent").textContent !== missing) at("silent").textContent = missing;
    show(at("shards"), shards.map(shardRow));
    show(at("waiting"), waiting.items.length ? waiting.items.map(waitingRow) : [nothing("Nobody")]);
    at("waiting-number").textContent = number(waiting.total);
    at("number").textContent = number(shards.length);
    say("live", `as of ${new Date().toLocaleTimeString()}`);
  } catch (error) {
    if (error.status === 401) { showLogin(""); return; }
    say("away", error.message);
  }
  if (!document.hidden) timer = setTimeout(look, Math.max(200, EVERY - (Date.now() - begun)));
}
function say(is, words) { at("connection").dataset.is = is; at("connection").textContent = words; }
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });

// ---- finding

at("find").onsubmit = async (event) => {
  event.preventDefault();
  const q = event.target.q.value.trim();
  if (!q) return;
  at("results").hidden = false;
  at("from").textContent = "Asking all stores …";
  show(at("hits"), []);
  const place = ID.test(q) ? asked(`api/fleet/sessions/${encodeURIComponent(q)}`).catch(() => ({ items: [] })) : { items: [] };
  try {
    const [{ items: places }, found] = await Promise.all([place, asked(`api/fleet/search?${new URLSearchParams({ q })}`)]);
    const total = found.answered.reduce((sum, one) => sum + one.total, 0);
    const all = found.answered.length + found.silent.length;
    at("from").textContent = [`${number(total)} ${total === 1 ? "event" : "events"} in ${found.answered.filter(({ total }) => total).length} of ${all} stores`, without(found.silent, all)].filter(Boolean).join("; ");
    const there = places.map(({ shard, link: href, sessionId }) => el("li", "", el("div", "item row", el("span", "chip", shard), link(href, `Session ${sessionId}`))));
    show(at("hits"), there.length + found.items.length ? [...there, ...found.items.map(hitRow)] : [nothing("Nothing")]);
  } catch (error) { at("from").textContent = error.message; }
};
at("clear").onclick = () => { at("results").hidden = true; at("find").q.focus(); };
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.matches("input")) { event.preventDefault(); at("find").q.focus(); }
  if (event.key === "Escape") { at("results").hidden = true; event.target.blur?.(); }
});

// ---- logging in

function showLogin(words) {
  at("login").hidden = !(at("view").hidden = true);
  say("out", "Logged out");
  Object.assign(at("login").querySelector("[role=alert]"), { hidden: !words, textContent: words });
  at("login").querySelector("input").focus();
}
at("login").querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ token: event.target.token.value });
  try {
    await asked("api/login", { method: "POST", body, headers: { "content-type": "application/json" } });
    event.target.token.value = "";
    look();
  } catch (error) { showLogin(error.message); }
};

look();
