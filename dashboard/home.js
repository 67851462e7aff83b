/* Home: who waits for a person, what runs, what has ended; the live feed; who is told by webhooks. */
import { asked } from "./api.js";
import { asks } from "./asks.js";
import { cardOf, drawAsk, drawRow } from "./cards.js";
import { note } from "./doing.js";
import { at, button, clock, el, failure, fill, hours, icon, kept, link, make, setCurrent, slot, svg, sync, timeText } from "./dom.js";
import { refresh, server, state } from "./live.js";
import { LongList } from "./long_list.js";
import * as Model from "./model.js";
import { count, few } from "./model.js";
import { route, schedule, turn } from "./route.js";

const VIEWS = { __proto__: null, "": "Rows", cards: "Cards", board: "Board", feed: "Feed" };
const MOST = 100;
const ROOM = [60, 1000];   // live sessions that are asked for at first, so that they are soon there; and at most
const STATUS_WORDS = { __proto__: null, waiting: "waiting for a person", active: "running" };
const folded = new Set(kept("folded", []));
let seen = kept("seen", { upTo: 0, ids: [] });
export const home = {
  frozen: null, seen: 0, room: ROOM[0],
  arrive(last) {
    if (last?.view !== "home" || last.query.status !== route.query.status) refresh.now();
    if (route.query.ask && route.query.ask !== last?.query.ask) this.openAsk(route.query.ask);
    for (const tile of document.querySelectorAll(".tile")) {
      const isChosen = tile.dataset.is === route.query.status;
      setCurrent(tile, isChosen);
      tile.href = Model.hashOf({ query: { ...route.query, status: isChosen ? "" : tile.dataset.is } });
    }
    for (const a of at("home-as").children) { setCurrent(a, a.dataset.as === (route.query.as ?? "")); a.href = Model.hashOf({ query: { ...route.query, as: a.dataset.as } }); }
    at("home").dataset.as = route.query.as ?? "";
    for (const [id, name] of Object.entries(FIELDS)) if (document.activeElement !== at(id)) at(id).value = route.query[name] ?? "";
    for (const head of document.querySelectorAll(".header [data-sort]")) setCurrent(head, head.dataset.sort === (route.query.sort ?? ""));
  },
  draw() {
    this.drawTiles();
    this.drawSessions();
    this.drawFeed();
    at("server").textContent = server
      ? `version ${server.version}, ${state.stats ? `${count(state.stats.events)} events, ${Model.bytes(state.stats.databaseBytes)}` : ""}`
      : "";
  },
  drawTiles() {
    const numbers = Model.tilesOf(state, asks.open(), seen);
    if (!numbers) return;
    for (const tile of document.querySelectorAll(".tile")) {
      const number = numbers[tile.dataset.is], words = count(number);
      if (tile.firstElementChild.textContent !== words) tile.firstElementChild.textContent = words;
      tile.dataset.some = number > 0 ? "yes" : "no";
    }
    this.drawPulse(state.stats.eventsPerMinute);
  },
  drawPulse(minutes) {
    const chart = document.querySelector(".pulse svg"), most = Math.max(...minutes, 1), key = minutes.join();
    if (chart.dataset.shown === key) return;
    chart.dataset.shown = key;
    at("pulse-now").textContent = `${few(minutes.at(-1), "event")} this minute`;
    chart.setAttribute("aria-label", `Events a minute over the last hour: ${minutes.at(-1)} in this minute, at most ${most}`);
    minutes.forEach((number, i) => {
      const bar = chart.children[i] ?? chart.appendChild(svg("rect", { x: i * 10 + 1, width: 8 }, svg("title", {})));
      const size = number ? Math.max(2, 42 * number / most) : 1;
      bar.setAttribute("y", 44 - size);
      bar.setAttribute("height", size);
      bar.classList.toggle("nothing", !number);
      bar.firstElementChild.textContent = `${hours.format(clock.now() - (minutes.length - 1 - i) * 60_000).slice(0, 5)}: ${few(number, "event")}`;
    });
  },
  async openAsk(id) {
    folded.delete("asks");
    asks.opened = id;
    const served = await asks.refresh();
    if (served && !served.has(id)) note("That ask is not open any more.");
    schedule();
  },
  drawSessions() {
    const place = at("home-none"), as = route.query.as ?? "";
    if (at("home").dataset.loaded !== "yes" && !refresh.failed) return;
    const sections = Model.sectionsOf(state.cards, asks.open(), { ...route.query, seen });
    const isTable = !["cards", "board"].includes(as), said = refresh.failed ? failure(refresh.failed, () => refresh.now()) : sections.length ? null : this.nothing();
    if (place.dataset.shown !== (place.dataset.shown = said ? `${refresh.failed} ${route.query.status} ${state.stats?.total}` : "")) place.replaceChildren(...(said ? [said] : []));
    at("groups").classList.toggle("long", isTable);
    if (said) { at("groups").replaceChildren(); table.rows.clear(); table.set([]); return; }
    if (isTable && at("groups").querySelector(".group")) at("groups").replaceChildren();
    if (isTable) table.set(Model.listOf(sections, folded));
    else this.drawCards(sections);
  },
  drawCards(sections) {
    table.rows.clear();
    at("groups").style.height = "";
    for (const child of [...at("groups").children]) if (!child.matches(".group")) child.remove();
    sync(at("groups"), sections, ({ key }) => key, () => el("li", "group", el("div", "section"), el("ol", "cards")), (group, section) => {
      const all = section.asks ?? section.cards, isFolded = folded.has(section.key);
      drawHead(group.firstElementChild, { section, number: all.length }, all.length > MOST && !isFolded ? `the first ${MOST}` : "");
      sync(group.lastElementChild, isFolded ? [] : all.slice(0, MOST), (one) => one.askId ?? one.sessionId, () => make(section.asks ? "t-ask" : "t-live"), section.asks ? drawAsk : drawRow);
    });
  },
  nothing() {
    const { status = "", words = "" } = route.query;
    if (!state.cards.size && !status && !words) { const place = el("div", "welcome"); import("./welcome.js").then(({ drawWelcome }) => place.replaceWith(drawWelcome(server))); return place; }
    return el("div", "empty", el("p", "", words ? "No match." : status ? `No session is ${STATUS_WORDS[status] ?? status}.` : "Nothing runs, and all that has ended was seen."),
      el("p", "", link(status || words ? "#/" : "#/sessions", status || words ? "Show all" : "All sessions")));
  },
  drawFeed() {
    const choice = { kind: route.query.feed ?? "", words: route.query.text ?? "" };
    const lines = Model.feedShown(this.frozen ?? state.feed, state.names, choice);
    feedList.set(lines);
    if (feedList.top < 6 && !this.frozen) this.seen = state.feed[0]?.cursor ?? 0;
    const fresh = feedList.top < 6 && !this.frozen ? 0 : Model.feedShown(state.feed, state.names, choice).filter((line) => line.key > this.seen).length;
    at("feed-fresh").hidden = !fresh;
    at("feed-fresh").textContent = this.frozen ? `Paused: ${count(fresh)} new` : `${count(fresh)} new ↑`;
    at("feed-none").hidden = lines.length > 0;
    at("feed-none").textContent = state.feed.length ? "Nothing of that kind among the newest events." : "Nothing yet.";
  },
  async answers() {
    const { status } = route.query, ended = (limit, ...which) => asked(`api/sessions?${new URLSearchParams([...which.map((one) => ["status", one]), ["limit", limit], ["details", "true"]])}`);
    const [stats, going, bad, well] = await Promise.all([asked("api/query/stats"), asked(`api/query/active?limit=${home.room}`),
      ...(["failed", "lost"].includes(status) ? [ended(200, status)] : [ended(60, "failed", "lost")]), ended(30, "completed", "cancelled"), asks.refresh()]);
    if (going.length === ROOM[0] && home.room === ROOM[0]) { home.room = ROOM[1]; refresh.soon(); }
    const active = new Set(going.map((card) => card.sessionId));
    return { stats, cards: [...going, ...[...bad.items, ...well.items].filter((card) => !active.has(card.sessionId))] };
  },
  again() { at("home").dataset.loaded = "yes"; return this.spent(); },
  /** What all sessions have cost since midnight, asked at most once a minute. */
  async spent(now = Date.now()) {
    if (now < this.asksSpentAt) return;
    this.asksSpentAt = now + 60_000;
    const { items } = await asked(`api/query/usage?${new URLSearchParams({ by: "model", since: new Date(new Date().setHours(0, 0, 0, 0)).toISOString() })}`);
    const sum = (name) => items.reduce((all, item) => all + (item[name] ?? 0), 0), costUsd = items.some((item) => item.costUsd !== null) ? sum("costUsd") : null;
    at("spent").hidden = !items.length;
    at("spent").textContent = `${Model.price({ costUsd, unpricedRequests: sum("unpricedRequests"), requests: sum("requests") })} today`;
    at("spent").title = `${few(sum("totalTokens"), "token")} in ${few(sum("requests"), "request")} since midnight, by this browser's clock`;
  },
  forget() { this.frozen = null; },
  move(by) {
    if (route.query.as === "feed") feedList.move(by);
    else if (at("groups").classList.contains("long")) table.move(by);
    else { const links = [...at("groups").querySelectorAll("[data-slot=name]")], from = links.indexOf(document.activeElement); links[Math.min(links.length - 1, Math.max(0, from + by))]?.focus(); }
  },
  async hear({ role, webhooks }) {
    if (at("webhooks").hidden = webhooks.status === "off" || !["admin", "control", "read"].includes(role)) return;
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
  /** What has ended was seen: the one that the keyboard is at, or all of it. */
  acknowledge(all = false) {
    const key = !all && document.activeElement?.closest("[data-end]")?.dataset.end;
    if (!all && !key) return;
    seen = key ? { ...seen, ids: [...seen.ids.slice(-500), key] } : { upTo: state.cursor ?? 0, ids: [] };
    if (key) table.move(1);
    kept("seen", null, seen);
    schedule();
  },
};

function drawHead(row, { section, number }, said = "") {
  const { key, title, worst } = section, all = key === "running" && !route.query.words ? state.stats?.sessions.active : 0;
  const more = said || (all > number ? `of ${count(all)}` : ""), isFolded = folded.has(key), words = `${title} ${number} ${isFolded} ${worst} ${more}`;
  if (row.dataset.shown === words) return;
  row.dataset.shown = words;
  const fold = button("", () => { folded.has(key) ? folded.delete(key) : folded.add(key); kept("folded", null, [...folded]); row.dataset.shown = ""; schedule(); }, "plain fold");
  fold.append(...(worst ? [Object.assign(el("i", "dot"), { title: worst })] : []), el("b", "", title), el("span", "number", count(number)), ...(worst && worst !== "active" ? [el("span", "dim", GROUP_WORDS[worst] ?? worst)] : []));
  fold.setAttribute("aria-expanded", !isFolded);
  if (worst) fold.firstElementChild.dataset.is = worst;
  row.replaceChildren(fold, el("span", "faint grow", more), ...(key === "ended" ? [button("Acknowledge all", () => home.acknowledge(true), "plain")] : []));
}
const GROUP_WORDS = { __proto__: null, asks: "asks", error: "stopped by an error", idle: "at the prompt" };
const phone = matchMedia("(max-width: 640px)");
const heightOf = (ask) => (phone.matches ? asks.can(ask) ? 152 : 126 : 50) + (asks.opened === ask.askId ? 240 : 0);
const height = ({ ask, section }) => ask ? heightOf(ask) : section ? phone.matches ? 48 : 36 : phone.matches ? 56 : 32;
const table = new LongList(at("groups").parentElement, at("groups"), {
  key: ({ key }) => key, height, sticks: "top",
  create: ({ ask, section }) => section ? el("li", "section") : make(ask ? "t-ask" : "t-live"),
  update(row, item) {
    if (item.section) return drawHead(row, item);
    if (item.ask) return drawAsk(row, item.ask);
    if (item.within === "ended") row.dataset.end = `${item.card.sessionId} ${item.card.lastCursor}`;
    return drawRow(row, item.card);
  },
});

const feedList = new LongList(at("feed").parentElement, at("feed"), {
  key: (line) => line.key, height: () => feedList.wide < 700 ? 44 : 30, sticks: "top", create: () => make("t-feed"),
  update(row, line) {
    const name = Model.nameOf(cardOf(line.sessionId)), key = `${line.events.length} ${line.times} ${name} ${line.state}`;
    if (row.dataset.key === key) return;
    row.dataset.key = key;
    row.dataset.kind = line.kind;
    row.dataset.state = line.state ?? "";
    icon(row, line.icon);
    const a = row.firstElementChild, words = Model.oneLine(line.text), title = line.times > 1 ? `${line.title} ×${line.times}` : line.title;
    a.href = Model.hashOf({ view: "session", id: line.sessionId, tab: "log", query: { entry: line.key } });
    a.title = Model.forPeople(`${name}\n${line.title}: ${words}\n${line.error}`.trim());
    fill(row, { time: timeText(line.time), who: name, text: words ? `${title}: ${words}` : title, why: line.kind === "error" ? "" : line.error,
      took: TOOK[line.state] ?? Model.lasting(line.took ?? NaN) });
  },
});
const TOOK = { __proto__: null, running: "running", error: "failed", rejected: "rejected", cancelled: "no result" };
const FIELDS = { "feed-kind": "feed", "feed-text": "text", "home-group": "group", "home-sort": "sort", "home-words": "words" };
for (const [id, choices] of [["feed-kind", Object.entries(Model.FEED_SHOWS)], ...[["home-group", Model.GROUPS], ["home-sort", Model.SORTS]].map(([id, all]) => [id, Object.entries(all).map(([name, [words]]) => [name, words])])])
  for (const [name, words] of choices) at(id).append(new Option(words, name));
for (const [id, name] of Object.entries(FIELDS)) at(id)[at(id).tagName === "SELECT" ? "onchange" : "oninput"] = (event) => turn({ [name]: event.target.value });
for (const [as, words] of Object.entries(VIEWS)) at("home-as").append(Object.assign(link("#/", words), { className: "button" }));
[...at("home-as").children].forEach((a, place) => { a.dataset.as = Object.keys(VIEWS)[place]; });
for (const head of document.querySelectorAll(".header [data-sort]")) head.onclick = () => turn({ sort: head.dataset.sort });
at("pause").onclick = () => home.pause();
at("feed-fresh").onclick = () => { home.pause(false); };
feedList.scroller.addEventListener("scroll", () => { if (feedList.top < 6) schedule(); }, { passive: true });

async function showWebhooks() {
  const { items } = await asked("api/webhooks");
  const rows = items.map((webhook) => el("tr", "", ...Model.webhookRow(webhook).map((text) => el("td", "", text)),
    el("td", webhook.error ? "bad" : "", webhook.error ?? "ok")));
  at("webhooks").querySelector("tbody").replaceChildren(...rows);
}
at("webhooks").addEventListener("toggle", () => { if (at("webhooks").open) showWebhooks().catch(() => { /* asked again soon */ }); });
