/* The feed: the WebSocket, its fallback, how true what is shown is, and what the server is asked again for. */
import { Away, Refused, access, asked, query, shared } from "./api.js";
import { at, clock, hours } from "./dom.js";
import * as Model from "./model.js";
import { millis } from "./model.js";
import { arrive, forgetViews, hasArrived, route, schedule, views } from "./route.js";

export let state = Model.EMPTY;
export let server = null;

const MOST = 5000;         // events that are caught up with; after more, one begins anew with the newest
const CALM = 250;          // milliseconds between two drawings of what streams in: nobody reads faster

/** The connection, in words. What is shown is true only while it is live or polling. */
export const live = {
  is: "connecting", socket: null, incoming: [], flushed: 0, timer: null, failures: 0, since: null, lastWord: 0, pinged: 0,
  isTrue() { return ["live", "polling"].includes(this.is); },
  say(is, words) {
    if (this.isTrue() && is === "away") this.since = clock.now();
    this.is = at("connection").dataset.is = is;
    at("connection").textContent = words;
    at("stale").hidden = is !== "away" || this.since === null;
    at("stale").textContent = `Not connected since ${hours.format(this.since)}: what is shown may be old. Trying again …`;
    schedule();
  },
  later(ms, act) { clearTimeout(this.timer); this.timer = setTimeout(act, ms); },
  again() { this.failures++; this.later(Math.min(5000, 400 * 1.6 ** this.failures), () => this.connect()); },

  async connect() {
    clearTimeout(this.timer);
    if (shared) { this.read(); return; }
    try {
      await askHealth();
      const { role, tokens } = server;
      document.body.dataset.role = role ?? "none";
      at("log-out").hidden = !tokens || !role;
      if (!role || role === "ingest") { access.lost(role ? "That token may only write. To look, one of the role read or admin is needed." : ""); return; }
      if (state.cursor !== null && (server.cursor < state.cursor || server.cursor > state.cursor + MOST)) forget();
      if (state.cursor === null) await this.begin();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return;
      this.say("away", error instanceof Away ? "Not connected" : `Not served: ${error.status}`);
      this.again();
      return;
    }
    if (this.failures > 2 && this.canPoll) this.poll(); else this.listen();
  },
  /** Whoever has a link to one session has no feed: it is asked again and again. */
  async read() {
    document.body.dataset.role = "share";
    const isThere = await fetch("health").then(({ ok }) => ok, () => false);
    this.say(isThere ? "polling" : "away", isThere ? "A session that was shared with you" : "Not connected");
    this.there();
    this.later(5000, () => this.read());
  },
  async begin() {
    const from = Math.max(0, server.cursor - 120);
    const { items } = await asked(`api/events?${query({ after: from, limit: 120 })}`);
    state = Model.reduceAll({ ...state, cursor: from }, items);
    schedule();
  },
  listen() {
    let socket, heard = false;
    try { socket = this.socket = new WebSocket(`ws?${query({ after: state.cursor })}`); } catch { this.blocked(); return; }
    socket.onmessage = ({ data }) => {
      heard = true;
      this.lastWord = Date.now();
      const message = JSON.parse(data);
      if (message.type === "connected") this.welcome(message);
      else if (message.cursor) this.take([message]);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      if (heard) { this.lose(); return; }
      this.socket = null;
      this.blocked();
    };
  },
  lose() {
    this.socket = null;
    this.say("away", "Reconnecting …");
    this.failures = 0;
    this.again();
  },
  welcome({ timestamp }) {
    clock.ahead = millis(timestamp) - Date.now();
    this.failures = 0;
    this.canPoll = false;
    this.say("live", "Live");
    this.there();
  },
  /** Connected, maybe again: what is shown is asked for anew. */
  there() { if (!hasArrived()) { arrive(); return; } if (!shared) refresh.soon(); views.session.reconnected(); },
  blocked() { this.canPoll = true; if (this.failures < 2) { this.again(); return; } this.poll(); },
  async poll() {
    try {
      const { items } = await asked(`api/events?${query({ after: state.cursor, limit: 1000 })}`);
      const isNew = this.is !== "polling";
      this.say("polling", "Live, by asking every 2 s: WebSockets are blocked");
      this.incoming.push(...items);
      this.flush();
      if (isNew) this.there();
      this.polls = (this.polls ?? 0) + 1;
      this.later(items.length === 1000 ? 0 : 2000, () => this.polls % 30 ? this.poll() : this.listen());
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return;
      this.say("away", "Not connected");
      this.later(2000, () => this.connect());
    }
  },
  take(events) {
    this.incoming.push(...events);
    this.flushing ??= setTimeout(() => this.flush(), Math.max(20, this.flushed + CALM - performance.now()));
  },
  flush() {
    clearTimeout(this.flushing);
    this.flushing = null;
    this.flushed = performance.now();
    const fresh = Model.unseen(state, this.incoming.splice(0));
    if (!fresh.length) return;
    state = Model.reduceAll(state, fresh);
    for (const view of Object.values(views)) view.take?.(fresh);
    refresh.soon();
    schedule();
  },
  /** A connection that says nothing any more is none: after 8 s it is asked, and then has 5 s to answer. */
  check() {
    const now = Date.now(), { socket } = this;
    if (this.is !== "live" || !socket || now - this.lastWord < 8000) return;
    if (this.pinged <= this.lastWord) { this.pinged = now; if (socket.readyState === 1) socket.send('{"type":"ping"}'); }
    else if (now - this.pinged > 5000) { this.lose(); socket.close(); }
  },
  stop() { clearTimeout(this.timer); const { socket } = this; this.socket = null; socket?.close(); },
};
setInterval(() => live.check(), 3000);

/** How the server is. It may be there and yet take no writes, or serve nothing: then it is said why. */
async function askHealth() {
  server = await asked("health");
  const why = server.status === "ok" || !server.role ? "" : await asked("ready").then(() => "", (error) => error.message);
  at("trouble").hidden = !why;
  at("trouble").textContent = why && `The store takes no writes now. ${why}`;
  await views.home.hear(server);
}
setInterval(() => { if (live.isTrue()) askHealth().catch(() => { /* the connection says so itself */ }); }, 15_000);

export function forget() { state = Model.EMPTY; forgetViews(); }

/** Asks the server again for what events alone do not tell: soon after they came, but never all the time. */
export const refresh = {
  timer: null, last: -Infinity, cost: 0, asking: null, failed: "",
  soon() { this.timer ??= setTimeout(() => this.now(), Math.max(120, this.last + Math.max(900, 6 * this.cost) - performance.now())); },
  async now() {
    clearTimeout(this.timer);
    this.timer = null;
    const asking = this.asking = {}, begun = performance.now();
    try {
      const view = views[route.view], answers = await (view.answers ?? fewAnswers)();
      if (this.asking !== asking) return;
      state = Model.loaded(state, answers);
      await view.again?.();
      this.failed = "";
    } catch (error) {
      if (this.asking !== asking) return;
      if (error instanceof Refused && error.status !== 401) this.failed = error.message;
      else if (!(error instanceof Refused || error instanceof Away)) console.error(error);
    }
    this.last = performance.now();
    this.cost = this.last - begun;
    schedule();
    if ((state.stale || this.failed) && live.isTrue()) this.soon();
  },
};
async function fewAnswers() { return { stats: await asked("api/query/stats"), cards: [...state.cards.values()] }; }
