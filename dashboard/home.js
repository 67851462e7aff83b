/* Home: who waits for a person, what runs, what has ended; the live feed; who is told by webhooks. */
import { asked, query } from "./api.js";
import { asks } from "./asks.js";
import { cardOf, drawAsk, drawRow } from "./cards.js";
import { note } from "./doing.js";
import { at, button, clock, el, failure, fill, hours, icon, kept, link, make, moveAmong, refill, say, setCurrent, svg, sync, timeText } from "./dom.js";
import { refresh, server, state } from "./live.js";
import { LongList } from "./long_list.js";
import * as Model from "./model.js";
import { count, few } from "./model.js";
import { entryHash, hashWith, route, schedule, turn } from "./route.js";

const VIEWS = { "": "Rows", cards: "Cards", board: "Board", feed: "Feed" };
const MOST = 100;          // cards of a section that are shown at once
const ROOM = [60, 1000];   // live sessions that are asked for at first, so that they are soon there; and at most
const STATUS_WORDS = { __proto__: null, waiting: "waiting for a person", active: "running" };
const FIELDS = { "feed-kind": "feed", "feed-text": "text", "home-group": "group", "home-sort": "sort", "home-words": "words" };
const groups = at("groups"), heads = document.querySelectorAll(".header [data-sort]"), tiles = document.querySelectorAll(".summary .tile");
const folded = new Set(kept("folded", []));
let seen = kept("seen", { upTo: 0, ids: [] });
export const home = {
  frozen: null, seen: 0, room: ROOM[0],
  arrive(last) {
    const { status, ask, as = "", sort = "" } = route.query;
    if (last?.view !== "home" || last.query.status !== status) refresh.now();
    if (ask && ask !== last?.query.ask) this.openAsk(ask);
    for (const tile of tiles) {
      const { is } = tile.dataset, isChosen = is === status;
      setCurrent(tile, isChosen);
      tile.href = hashWith({ status: isChosen ? "" : is });
    }
    for (const a of at("home-as").children) { setCurrent(a, a.dataset.as === as); a.href = hashWith({ as: a.dataset.as }); }
    at("home").dataset.as = as;
    for (const [id, name] of Object.entries(FIELDS)) if (document.activeElement !== at(id)) at(id).value = route.query[name] ?? "";
    for (const head of heads) setCurrent(head, head.dataset.sort === sort);
  },
  draw() {
    const { stats } = state;
    this.drawTiles();
    this.drawSessions();
    this.drawFeed();
    say(at("server"), server ? `version ${server.version}, ${stats ? `${count(stats.events)} events, ${Model.bytes(stats.databaseBytes)}` : ""}` : "");
  },
  drawTiles() {
    const numbers = Model.tilesOf(state, asks.open(), seen);
    if (!numbers) return;
    for (const tile of tiles) {
      const number = numbers[tile.dataset.is];
      say(tile.firstElementChild, count(number));
      tile.dataset.some = number > 0 ? "yes" : "no";
    }
    const minutes = state.stats.eventsPerMinute;
    refill(document.querySelector(".pulse"), minutes.join(), () => pulseOf(minutes));
  },
  /** The ask that a notice's link leads to. */
  async openAsk(id) {
    folded.delete("asks");
    asks.opened = id;
    const served = await asks.refresh();
    if (served && !served.has(id)) note("That ask is not open any more.");
    schedule();
  },
  drawSessions() {
    if (at("home").dataset.loaded !== "yes" && !refresh.failed) return;
    const sections = Model.sectionsOf(state.cards, asks.open(), { ...route.query, seen }), isTable = !["cards", "board"].includes(route.query.as);
    const { failed } = refresh, isNone = failed || !sections.length;
    refill(at("home-none"), isNone ? `${failed} ${route.query.status} ${state.stats?.total}` : "", () => failed ? [failure(failed, () => refresh.now())] : isNone ? [this.nothing()] : []);
    groups.classList.toggle("long", isTable);
    if (isTable !== !groups.querySelector(".group")) groups.replaceChildren();
    if (isTable || table.items.length) table.set(isTable && !isNone ? Model.listOf(sections, folded) : []);
    if (!isTable) this.drawCards(isNone ? [] : sections);
  },
  drawCards(sections) {
    sync(groups, sections, ({ key }) => key, () => el("li", "group", el("div", "section"), el("ol", "cards")), (group, section) => {
      const all = section.asks ?? section.cards, isFolded = folded.has(section.key);
      drawHead(group.firstElementChild, { section, number: all.length }, all.length > MOST && !isFolded ? `the first ${MOST}` : "");
      sync(group.lastElementChild, isFolded ? [] : all.slice(0, MOST), (one) => one.askId ?? one.sessionId, () => make(section.asks ? "t-ask" : "t-live"), section.asks ? drawAsk : drawRow);
    });
  },
  nothing() {
    const { status = "", words = "" } = route.query, isChosen = status || words;
    if (!state.cards.size && !isChosen) { const place = el("div", "welcome"); import("./welcome.js").then(({ drawWelcome }) => place.replaceWith(drawWelcome(server))); return place; }
    return el("div", "empty", el("p", "", words ? "No match." : status ? `No session is ${STATUS_WORDS[status] ?? status}.` : "Nothing runs, and all that has ended was seen."),
      isChosen ? link("#/", "Show all") : link("#/sessions", "All sessions"));
  },
  drawFeed() {
    const choice = { kind: route.query.feed ?? "", words: route.query.text ?? "" }, linesOf = (feed) => Model.feedShown(feed, state.names, choice);
    const lines = linesOf(this.frozen ?? state.feed);
    feedList.set(lines);
    const follows = feedList.top < 6 && !this.frozen;
    if (follows) this.seen = state.feed[0]?.cursor ?? 0;
    const fresh = follows ? 0 : linesOf(state.feed).filter((line) => line.key > this.seen).length;
    at("feed-fresh").hidden = !fresh;
    say(at("feed-fresh"), this.frozen ? `Paused: ${count(fresh)} new` : `${count(fresh)} new ↑`);
    at("feed-none").hidden = lines.length > 0;
    say(at("feed-none"), state.feed.length ? "Nothing of that kind among the newest events." : "Nothing yet.");
  },
  async answers() {
    const { status } = route.query, ended = (limit, ...which) => asked(`api/sessions?${which.map((one) => `status=${one}&`).join("")}limit=${limit}&details=true`);
    const [stats, going, bad, well] = await Promise.all([asked("api/query/stats"), asked(`api/query/active?limit=${home.room}`),
      ["failed", "lost"].includes(status) ? ended(200, status) : ended(60, "failed", "lost"), ended(30, "completed", "cancelled"), asks.refresh()]);
    if (going.length === ROOM[0] && home.room === ROOM[0]) { home.room = ROOM[1]; refresh.soon(); }
    const active = new Set(going.map((card) => card.sessionId));
    return { stats, cards: [...going, ...[...bad.items, ...well.items].filter((card) => !active.has(card.sessionId))] };
  },
  again() { at("home").dataset.loaded = "yes"; return this.spent().catch(() => {}); },
  /** What all sessions have cost since midnight, asked at most once a minute. */
  async spent(now = Date.now()) {
    if (now < this.asksSpentAt) return;
    this.asksSpentAt = now + 60_000;
    const { items } = await asked(`api/query/usage?${query({ by: "model", since: new Date(new Date().setHours(0, 0, 0, 0)).toISOString() })}`);
    at("spent").hidden = !items.length;
    at("spent").textContent = `${Model.priceOf(items)} today`;
    at("spent").title = `${few(Model.sum(items, "totalTokens"), "token")} in ${few(Model.sum(items, "requests"), "request")} since midnight, by this browser's clock`;
  },
  /** What agents ask of people is told in every view. */
  take(events) { if (performance.now() - asks.last > 1000 && events.some(({ type, data }) => type === "session_deleted" || data.attention)) asks.refresh().then(schedule); },
  forget() { this.frozen = null; },
  move(by) {
    if (route.query.as === "feed") feedList.move(by);
    else if (groups.classList.contains("long")) table.move(by);
    else moveAmong([...groups.querySelectorAll("[data-slot=name]")], by);
  },
  /** What the server says of itself. */
  async hear({ role, webhooks, cursor }) {
    if (seen.upTo > cursor) seen = { upTo: 0, ids: [] };      // it was another store's
    if (at("webhooks").hidden = webhooks.status === "off" || !["admin", "control", "read"].includes(role)) return;
    at("webhooks").firstElementChild.textContent = Model.webhooksLine(webhooks);
    if (at("webhooks").open) await showWebhooks();
  },
  pause(isPaused = !this.frozen) {
    this.frozen = isPaused ? state.feed : null;
    at("pause").ariaPressed = isPaused;
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

function pulseOf(minutes) {
  const most = Math.max(...minutes, 1), said = `${few(minutes.at(-1), "event")} this minute`;
  return [svg("svg", { viewBox: "0 0 600 44", preserveAspectRatio: "none", role: "img", "aria-label": `Events a minute over the last hour: ${said}, at most ${most}` }, ...minutes.map((number, i) => {
    const height = number ? Math.max(2, 42 * number / most) : 1, when = hours.format(clock.now() - (minutes.length - 1 - i) * 60_000).slice(0, 5);
    return svg("rect", { x: i * 10 + 1, width: 8, y: 44 - height, height, class: number ? "" : "nothing" }, svg("title", {}, `${when}: ${few(number, "event")}`));
  })), el("figcaption", "", said)];
}
function drawHead(row, { section, number }, said = "") {
  const { key, title, worst } = section, all = key === "running" && !route.query.words ? state.stats?.sessions.active : 0;
  const more = said || (all > number ? `of ${count(all)}` : ""), isFolded = folded.has(key);
  refill(row, `${title} ${number} ${isFolded} ${worst} ${more}`, () => {
    const fold = button("", () => { if (!folded.delete(key)) folded.add(key); kept("folded", null, [...folded]); schedule(); }, "plain fold");
    if (worst) fold.append(Object.assign(el("i", "dot"), { title: worst }));
    fold.append(el("b", "", title), el("span", "number", count(number)), worst && worst !== "active" ? el("span", "dim", GROUP_WORDS[worst] ?? worst) : "");
    fold.ariaExpanded = !isFolded;
    if (worst) fold.firstElementChild.dataset.is = worst;
    return [fold, el("span", "faint grow", more), key === "ended" ? button("Acknowledge all", () => home.acknowledge(true), "plain") : ""];
  });
}
const GROUP_WORDS = { error: "stopped by an error", idle: "at the prompt" };
const phone = matchMedia("(max-width: 640px)");
const heightOf = (ask) => (phone.matches ? asks.can(ask) ? 152 : 126 : 50) + (asks.opened === ask.askId ? 240 : 0);
const table = new LongList(groups, {
  height: ({ ask, section }) => ask ? heightOf(ask) : section ? phone.matches ? 48 : 36 : phone.matches ? 56 : 32, sticks: "top",
  create: ({ ask, section }) => section ? el("li", "section") : make(ask ? "t-ask" : "t-live"),
  update(row, item) {
    if (item.section) return drawHead(row, item);
    if (item.ask) return drawAsk(row, item.ask);
    if (item.within === "ended") row.dataset.end = `${item.card.sessionId} ${item.card.lastCursor}`;
    return drawRow(row, item.card);
  },
});

const feedList = new LongList(at("feed"), {
  height: () => feedList.wide < 700 ? 44 : 30, sticks: "top", create: () => make("t-feed"),
  update(row, line) {
    const { kind, state = "", sessionId, times, error } = line, name = Model.nameOf(cardOf(sessionId)), key = `${line.events.length} ${times} ${name} ${state}`;
    if (row.dataset.key === key) return;
    Object.assign(row.dataset, { key, kind, state: state ?? "" });
    icon(row, line.icon);
    const a = row.firstElementChild, words = Model.oneLine(line.text), title = times > 1 ? `${line.title} ×${times}` : line.title;
    a.href = entryHash(sessionId, line.key);
    a.title = Model.forPeople(`${name}\n${line.title}: ${words}\n${error}`.trim());
    fill(row, { time: timeText(line.time), who: name, text: words ? `${title}: ${words}` : title, why: kind === "error" ? "" : error, took: Model.OUTCOMES[state] ?? Model.lasting(line.took ?? NaN) });
  },
});
const named = (choices) => Object.entries(choices).map(([name, [words]]) => [name, words]);
for (const [id, choices] of [["feed-kind", Object.entries(Model.FEED_SHOWS)], ["home-group", named(Model.GROUPS)], ["home-sort", named(Model.SORTS)]]) at(id).append(...choices.map(([name, words]) => new Option(words, name)));
for (const [id, name] of Object.entries(FIELDS)) at(id).oninput = (event) => turn({ [name]: event.target.value });
for (const [as, words] of Object.entries(VIEWS)) { const a = link("", words); a.className = "button"; a.dataset.as = as; at("home-as").append(a); }
for (const head of heads) head.onclick = () => turn({ sort: head.dataset.sort });
addEventListener("storage", () => { seen = kept("seen", seen); schedule(); });
at("pause").onclick = () => home.pause();
at("feed-fresh").onclick = () => home.pause(false);
feedList.scroller.addEventListener("scroll", () => { if (feedList.top < 6) schedule(); }, { passive: true });

/** Who is told of sessions by HTTP, and how that goes. */
async function showWebhooks() {
  const { items } = await asked("api/webhooks");
  at("webhooks").querySelector("tbody").replaceChildren(...items.map((webhook) => el("tr", "", ...Model.webhookRow(webhook).map((words) => el("td", "", words)),
    el("td", webhook.error ? "bad" : "", webhook.error ?? "ok"))));
}
at("webhooks").ontoggle = () => { if (at("webhooks").open) showWebhooks().catch(() => { /* asked again soon */ }); };
