/* Home: who waits for a person, what runs, what has ended; the live feed; who is told by webhooks. */
import { asked } from "./api.js";
import { drawCard, drawEnded } from "./cards.js";
import { createTestSession } from "./doing.js";
import { at, button, clock, el, failure, fill, hours, icon, link, make, moveAmong, setCurrent, slot, svg, sync, timeText } from "./dom.js";
import { refresh, server, state } from "./live.js";
import { LongList } from "./long_list.js";
import * as Model from "./model.js";
import { count, few, text } from "./model.js";
import { route, schedule, turn } from "./route.js";

const OVER = { __proto__: null, lost: ["lost"], failed: ["failed"], today: [] };
const STATUS_WORDS = { __proto__: null, "": "", waiting: "waiting for a person", active: "active", lost: "lost", failed: "failed",
  today: "changed today" };
export const home = {
  frozen: null, seen: 0,
  arrive(last) {
    if (last?.view !== "home" || last.query.status !== route.query.status) refresh.now();
    for (const tile of document.querySelectorAll(".tile")) {
      const isChosen = tile.dataset.is === route.query.status;
      setCurrent(tile, isChosen);
      tile.href = Model.hashOf({ query: { ...route.query, status: isChosen ? "" : tile.dataset.is } });
    }
    at("feed-kind").value = route.query.feed ?? "";
    if (document.activeElement !== at("feed-text")) at("feed-text").value = route.query.words ?? "";
  },
  draw() {
    this.drawTiles();
    this.drawGroups();
    this.drawFeed();
    at("server").textContent = server
      ? `version ${server.version}, ${state.stats ? `${count(state.stats.events)} events, ${Model.bytes(state.stats.databaseBytes)}` : ""}`
      : "";
  },
  drawTiles() {
    const numbers = Model.tiles(state);
    if (!numbers) return;
    for (const tile of document.querySelectorAll(".tile")) {
      const number = numbers[tile.dataset.is];
      const words = count(number);
      if (tile.firstElementChild.textContent !== words) tile.firstElementChild.textContent = words;
      tile.dataset.some = number > 0 ? "yes" : "no";
    }
    this.drawPulse(state.stats.eventsPerMinute);
  },
  drawPulse(minutes) {
    const chart = document.querySelector(".pulse svg");
    const most = Math.max(...minutes, 1), key = minutes.join();
    if (chart.dataset.shown === key) return;
    chart.dataset.shown = key;
    at("pulse-now").textContent = `${count(minutes.at(-1))} now, at most ${count(Math.max(...minutes))}`;
    chart.setAttribute("aria-label",
      `Events a minute over the last hour: ${minutes.at(-1)} in this minute, at most ${Math.max(...minutes)}`);
    minutes.forEach((number, i) => {
      const bar = chart.children[i] ?? chart.appendChild(svg("rect", { x: i * 10 + 1, width: 8 }, svg("title", {})));
      if (bar.dataset.shown === `${number} ${most}`) return;
      bar.dataset.shown = `${number} ${most}`;
      const size = number ? Math.max(2, 42 * number / most) : 1;
      bar.setAttribute("y", 44 - size);
      bar.setAttribute("height", size);
      bar.setAttribute("rx", number ? 1.5 : 0);
      bar.classList.toggle("nothing", !number);
      bar.firstElementChild.textContent = `${hours.format(clock.now() - (minutes.length - 1 - i) * 60_000).slice(0, 5)}: ${few(number, "event")}`;
    });
  },
  groups() {
    const { waiting, active, over } = Model.lists(state), { status = "" } = route.query, numbers = Model.tiles(state) ?? {};
    const more = (wanted) => Model.hashOf({ view: "sessions", query: { status: wanted } });
    const every = {
      __proto__: null,
      waiting: { title: "Waiting for a person", cards: waiting },
      active: { title: "Running", cards: active },
      lost: { title: "Lost", rows: over.filter((card) => card.status === "lost") },
      failed: { title: "Failed", rows: over.filter((card) => card.status === "failed") },
    };
    const group = (key) => ({ key, ...every[key], number: numbers[key], href: more(key) });
    if (status === "today") return [{ key: "today", title: "Changed today", rows: changedToday(), href: more("") }];
    if (every[status]) return [group(status)];
    return [group("waiting"), group("active"), { key: "over", title: "Ended or lost", rows: over.slice(0, 12), href: more("") }]
      .filter(({ cards, rows }) => (cards ?? rows).length);
  },
  drawGroups() {
    const place = at("groups");
    if (at("home").dataset.loaded !== "yes" && !refresh.failed) return;
    if (refresh.failed) { place.replaceChildren(failure(refresh.failed, () => refresh.now())); return; }
    const groups = this.groups();
    if (!groups.some((group) => (group.cards ?? group.rows).length)) { place.replaceChildren(this.nothing()); return; }
    for (const child of [...place.children]) if (!child.dataset.key) child.remove();
    sync(place, groups, (group) => group.key, () => make("t-group"), (element, group) => {
      const shown = group.cards ?? group.rows;
      fill(element, { title: group.title, number: group.number === undefined ? "" : count(group.number),
        more: (group.number ?? 0) > shown.length ? "All of them" : group.rows ? "All sessions" : "" });
      slot(element, "more").href = group.href;
      const list = slot(element, "list");
      list.className = group.cards ? "cards" : "ended";
      sync(list, shown, (card) => card.sessionId, () => make(group.cards ? "t-card" : "t-ended"), group.cards ? drawCard : drawEnded);
    });
  },
  nothing() {
    const status = route.query.status ?? "";
    if (status) return el("div", "empty", el("p", "", `No session is ${STATUS_WORDS[status] ?? status}.`),
      el("p", "", link("#/", "Show all")));
    return el("div", "empty", el("p", "", "No sessions yet. The first word of an agent makes one."),
      el("p", "writes", "Try it: ", button("Create a test session", createTestSession, "main")),
      el("p", "dim", "The ", link("schema", "API"), " says how."));
  },
  drawFeed() {
    const choice = { kind: route.query.feed ?? "", words: route.query.words ?? "" };
    const lines = Model.feedShown(this.frozen ?? state.feed, choice);
    feedList.set(lines);
    if (feedList.top < 6 && !this.frozen) this.seen = state.feed[0]?.cursor ?? 0;
    const fresh = Model.feedShown(state.feed, choice).filter((line) => line.cursor > this.seen).length;
    at("feed-fresh").hidden = !fresh;
    at("feed-fresh").textContent = this.frozen ? `Paused: ${count(fresh)} new` : `${count(fresh)} new ↑`;
    at("feed-none").hidden = lines.length > 0;
    at("feed-none").textContent = state.feed.length ? "Nothing of that kind among the newest events." : "Nothing yet.";
  },
  /** What home is made of, asked anew. */
  async answers() {
    const chosen = OVER[route.query.status];
    const over = [...(chosen ?? [...Model.ENDED, "lost"]).map((status) => ["status", status]), ["limit", chosen ? 60 : 12],
      ["details", "true"]];
    const [stats, going, ended] = await Promise.all([asked("api/query/stats"), asked("api/query/active?limit=60"),
      asked(`api/sessions?${new URLSearchParams(over)}`)]);
    const active = new Set(going.map((card) => card.sessionId));
    return { stats, cards: [...going, ...ended.items.filter((card) => !active.has(card.sessionId))] };
  },
  again() { at("home").dataset.loaded = "yes"; },
  forget() { this.frozen = null; },
  move: (by) => moveAmong([...at("groups").querySelectorAll(".name, .ended .item")], by),
  /** What the server says of itself. */
  async hear({ role, webhooks }) {
    if (at("webhooks").hidden = webhooks.status === "off" || !["admin", "read"].includes(role)) return;
    at("webhooks").firstElementChild.textContent = Model.webhooksLine(webhooks);
    if (at("webhooks").open) await showWebhooks();
  },
  pause(isPaused = !this.frozen) {
    this.frozen = isPaused ? state.feed : null;
    at("pause").setAttribute("aria-pressed", String(isPaused));
    at("pause").textContent = isPaused ? "Resume" : "Pause";
    if (!isPaused) feedList.to(0);
    this.drawFeed();
  },
};

/** What a session is called, where it is one of those that are shown. */
const nameHere = (id) => Model.nameOf(state.cards.get(id) ?? { sessionId: id });
const feedList = new LongList(at("feed").parentElement, at("feed"), {
  key: (line) => line.cursor, height: () => 30, sticks: "top", create: () => make("t-feed"),
  update(row, line) {
    const key = `${line.cursor} ${nameHere(line.sessionId)}`;
    if (row.dataset.key === key) return;
    row.dataset.key = key;
    row.dataset.kind = line.kind;
    icon(row, line.icon);
    row.firstElementChild.href = Model.hashOf({ view: "session", id: line.sessionId, tab: "log", query: { entry: line.cursor } });
    row.firstElementChild.title = `${line.sessionId}  ${line.time}`;
    fill(row, { time: timeText(line.time), who: nameHere(line.sessionId), text: line.text ? `${line.title}: ${line.text}` : line.title
      });
  },
});
for (const [name, words] of Object.entries(Model.FEED_KINDS)) at("feed-kind").append(new Option(words, name));
at("feed-kind").onchange = (event) => turn({ feed: event.target.value });
at("feed-text").oninput = (event) => turn({ words: event.target.value });
at("pause").onclick = () => home.pause();
at("feed-fresh").onclick = () => { home.pause(false); };
feedList.scroller.addEventListener("scroll", () => { if (feedList.top < 6) schedule(); }, { passive: true });

/** The sessions that changed since 00:00 UTC, the newest change first. */
function changedToday() {
  const today = new Date(clock.now()).toISOString().slice(0, 10);
  return [...state.cards.values()].filter((card) => text(card.updated).slice(0, 10) === today).sort((a, b) => b.lastCursor - a.lastCursor);
}

/** Who is told of sessions by HTTP, and how that goes. */
async function showWebhooks() {
  const { items } = await asked("api/webhooks");
  const rows = items.map((webhook) => el("tr", "", ...Model.webhookRow(webhook).map((text) => el("td", "", text)),
    el("td", webhook.error ? "bad" : "", webhook.error ?? "ok")));
  at("webhooks").querySelector("tbody").replaceChildren(...rows);
}
at("webhooks").addEventListener("toggle", () => { if (at("webhooks").open) showWebhooks().catch(() => { /* asked again soon */ }); });
