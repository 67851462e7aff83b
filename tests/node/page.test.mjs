// The page's model, taken out of dashboard.html: `node --test tests/node/page.test.mjs`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const page = readFileSync(new URL("../../dashboard.html", import.meta.url), "utf8");
const [, script] = /<script id="model">([\s\S]*?)<\/script>/.exec(page);
const Model = new Function(`${script}; return Model;`)();

let cursor = 0;
const event = (type, data = {}, more = {}) => ({
  cursor: ++cursor, type, sessionId: "s", userId: "alice", eventId: `e${cursor}`, agentId: null,
  timestamp: new Date(1_700_000_000_000 + cursor * 1000).toISOString(), receivedAt: new Date(1_700_000_000_000 + cursor * 1000).toISOString(), data, ...more,
});
const prompt = (text, more) => event("action", { type: "prompt", prompt: text }, more);
const call = (id, tool = "Bash", input = { command: "true" }, more) => event("action", { type: "tool_call", toolUseId: id, tool, input }, more);
const result = (id, members = { output: { stdout: "" }, durationMs: 7 }, more) => event("response", { type: "tool_result", toolUseId: id, tool: "Bash", ...members }, more);
const logOf = (...events) => Model.withEvents(Model.NO_EVENTS, events, { begins: true, ends: true });
const states = (log) => Model.rowsOf(log).map((row) => row.state);
const card = (members = {}) => ({ sessionId: "s", userId: "alice", status: "active", attention: null, lastCursor: 0, created: "2026-01-01", updated: "2026-01-01", actions: 0, responses: 0, ended: null, ...members });
const stateWith = (...cards) => ({ ...Model.EMPTY, cursor: 0, cards: new Map(cards.map((each) => [each.sessionId, each])) });

const frozen = (value) => { if (value && typeof value === "object" && !(value instanceof Map)) { Object.freeze(value); Object.values(value).forEach(frozen); } return value; };

// ---- the store

test("an event that was seen already changes nothing", () => {
  const once = Model.reduce(stateWith(card()), prompt("go"));
  assert.equal(Model.reduce(once, { ...event("action", { type: "prompt" }), cursor: once.cursor }), once);
});

test("an event that comes twice at once counts once", () => {
  const twice = prompt("go");
  const state = Model.reduceAll(stateWith(card()), [twice, twice]);
  assert.deepEqual([state.feed.length, state.cards.get("s").actions], [1, 1]);
});

test("reducing many events is reducing one after the other", () => {
  const events = [prompt("one"), call("t"), result("t"), event("session_finalized", { status: "failed" })];
  const start = stateWith(card());
  assert.deepEqual(Model.reduceAll(start, events), events.reduce(Model.reduce, start));
});

test("a state that was given is never changed", () => {
  const start = frozen(stateWith(frozen(card())));
  Model.reduceAll(start, [prompt("one"), event("session_lost")].map(frozen));
  assert.equal(start.cards.get("s").status, "active");
  assert.equal(start.feed.length, 0);
});

test("a card follows its session: asked, answered, ended, deleted", () => {
  let state = stateWith(card());
  const status = (next) => { state = Model.reduce(state, next); return state.cards.get("s")?.status; };
  assert.equal(status(event("action", { type: "permission_request", attention: { reason: "permission", message: "Bash: rm" } })), "waiting");
  assert.equal(state.cards.get("s").attention.message, "Bash: rm");
  assert.equal(status(prompt("yes")), "active");
  assert.equal(state.cards.get("s").lastPrompt, "yes");
  assert.equal(status(event("session_lost")), "lost");
  assert.equal(status(call("t")), "active");
  assert.equal(status(event("session_finalized", { status: "cancelled" })), "cancelled");
  assert.equal(status(event("session_resumed")), "active");
  assert.equal(status(event("session_deleted")), undefined);
});

test("the server's answer wins, but not over what an event has told since", () => {
  const state = Model.reduce(stateWith(card()), prompt("newer"));
  const older = Model.loaded(state, { stats: null, cards: [card({ lastCursor: state.cursor - 1 })] });
  assert.equal(older.cards.get("s").lastPrompt, "newer");
  assert.equal(older.stale, true);
  const newer = Model.loaded(state, { stats: null, cards: [card({ lastCursor: state.cursor, lastPrompt: "from the server" })] });
  assert.equal(newer.cards.get("s").lastPrompt, "from the server");
  assert.equal(newer.stale, false);
});

test("those that ask come first, then those that wait the longest; those that run do not change places", () => {
  const state = stateWith(card({ sessionId: "b", status: "waiting", attention: { since: "2026-02" } }), card({ sessionId: "a", status: "waiting", attention: { since: "2026-01" } }), card({ sessionId: "i", status: "waiting", attention: { reason: "input", since: "2025-01" } }),
    card({ sessionId: "x", created: "2026-03", lastCursor: 1 }), card({ sessionId: "y", created: "2026-02", lastCursor: 9 }), card({ sessionId: "z", status: "lost" }));
  const { waiting, active, over } = Model.lists(state);
  assert.deepEqual([waiting, active, over].map((list) => list.map((each) => each.sessionId)), [["a", "b", "i"], ["x", "y"], ["z"]]);
});

test("the feed keeps its newest and filters by kind and words", () => {
  const state = Model.reduceAll(stateWith(), Array.from({ length: 700 }, (_, i) => prompt(`number ${i}`)));
  assert.equal(state.feed.length, 500);
  assert.equal(state.feed[0].text, "number 699");
  assert.equal(Model.feedShown(state.feed, { kind: "talk", words: "NUMBER 69" }).length, 10);
  assert.equal(Model.feedShown(state.feed, { kind: "error" }).length, 0);
});

test("the title says how many wait", () => {
  assert.equal(Model.title(0), "Session store");
  assert.equal(Model.title(2, "demo"), "(2) demo · Session store");
});

// ---- the log

test("a call and its result are one row with its duration", () => {
  const [row, ...rest] = Model.rowsOf(logOf(call("a"), result("a")));
  assert.equal(rest.length, 0);
  assert.deepEqual([row.state, row.took, row.events.length, row.title], ["ok", 7, 2, "Bash"]);
});

test("parallel calls find their own results, in whatever order these come", () => {
  const rows = Model.rowsOf(logOf(call("a"), call("b"), result("b"), event("response", { type: "tool_error", toolUseId: "a", tool: "Bash", error: "Exit code 1" })));
  assert.deepEqual(rows.map((row) => [row.events[0].data.toolUseId, row.state]), [["a", "error"], ["b", "ok"]]);
});

test("an open call runs until the session has moved on", () => {
  assert.deepEqual(states(logOf(call("a"))), ["running"]);
  assert.deepEqual(states(logOf(call("a"), prompt("next"))), ["cancelled", null]);
  assert.deepEqual(states(logOf(call("a"), event("session_finalized", {}))).slice(0, 1), ["cancelled"]);
  assert.deepEqual(states(logOf(call("a"), event("session_lost"))).slice(0, 1), ["cancelled"]);
});

test("a sub-agent's call outlives a prompt, but not the sub-agent", () => {
  const inside = { agentId: "w" };
  assert.deepEqual(states(logOf(call("a", "Bash", {}, inside), prompt("next")))[0], "running");
  assert.deepEqual(states(logOf(call("a", "Bash", {}, inside), event("agent_completed", { agentId: "w" }, inside)))[0], "cancelled");
});

test("a result that comes late still ends a call that was given up", () => {
  assert.deepEqual(states(logOf(call("a"), prompt("next"), result("a")))[0], "ok");
});

test("in a piece from the middle an open call is not said to run", () => {
  assert.deepEqual(states({ ...logOf(call("a")), ends: false }), ["open"]);
});

test("a call or result that was told twice is one row", () => {
  assert.equal(Model.rowsOf(logOf(call("a"), call("a"), result("a"), result("a"))).length, 1);
});

test("a result without its call is a row of its own", () => {
  const [row] = Model.rowsOf(logOf(result("a")));
  assert.deepEqual([row.state, row.took], ["ok", 7]);
});

test("a message that is shown in parts is one row, and the answer that repeats it none", () => {
  const part = (index, delta) => event("action", { type: "message_display", message_id: "m", index, delta });
  const rows = Model.rowsOf(logOf(part(0, "Hello "), part(1, "world"), event("response", { type: "assistant_message", message: "Hello world" })));
  assert.deepEqual(rows.map((row) => [row.kind, row.text, row.events.length]), [["answer", "Hello world", 3]]);
  const other = Model.rowsOf(logOf(part(0, "Hello"), event("response", { type: "assistant_message", message: "Goodbye" })));
  assert.deepEqual(other.map((row) => row.kind), ["says", "answer"]);
});

test("pieces of a log join in cursor order, each event once", () => {
  const all = Array.from({ length: 6 }, (_, i) => prompt(`${i}`));
  let log = Model.withEvents(Model.NO_EVENTS, all.slice(3, 5), { ends: true });
  log = Model.withEvents(log, all.slice(0, 4), { begins: true });
  log = Model.withEvents(log, [all[5], all[5]].slice(0, 1));
  assert.deepEqual(log.events, all);
  assert.deepEqual([log.begins, log.ends], [true, true]);
});

test("a log that grows for ever drops its oldest", () => {
  let log = logOf();
  for (let i = 0; i < 30; i++) log = Model.withEvents(log, Array.from({ length: 1000 }, () => prompt("x")));
  assert.ok(log.events.length <= Model.LOG);
  assert.equal(log.begins, false);
  assert.equal(log.events.at(-1).cursor, cursor);
});

test("a log that is read back for ever drops its newest, and says that there are newer ones", () => {
  const all = Array.from({ length: 30_000 }, () => prompt("x"));
  let log = logOf(all.at(-1));
  for (let end = all.length - 1; end > 0; end -= 1000) log = Model.withEvents(log, all.slice(Math.max(0, end - 1000), end));
  assert.ok(log.events.length <= Model.LOG);
  assert.deepEqual([log.events[0], log.ends], [all[0], false]);
});

test("what went wrong is known by any of the words that agents have for it", () => {
  for (const data of [{ type: "tool_error" }, { type: "x", ok: false }, { type: "x", success: false }, { type: "x", status: "failed" }, { type: "x", exitCode: 2 }, { type: "x", error: "boom" }]) assert.equal(Model.isError(event("response", data)), true, JSON.stringify(data));
  for (const data of [{ type: "x", ok: true }, { type: "x", error: null }, { type: "x", error: false }, { type: "x", exitCode: 0 }]) assert.equal(Model.isError(event("response", data)), false, JSON.stringify(data));
});

test("live events are held against the same filter as the server's", () => {
  const failed = event("response", { type: "tool_error" }, { agentId: "w" });
  assert.equal(Model.isAskedFor(failed, { show: "tools", agent: "w", errors: "yes" }), true);
  assert.equal(Model.isAskedFor(failed, { show: "talk" }), false);
  assert.equal(Model.isAskedFor(failed, { agent: "other" }), false);
  assert.equal(Model.isAskedFor(prompt("x"), { errors: "yes" }), false);
  assert.equal(Model.isAskedFor(prompt("x"), { show: "prompt" }), true);
  assert.deepEqual(Model.askedFor({ show: "my_kind", agent: "w", errors: "yes" }), { kind: "my_kind", agentId: "w", errors: "true" });
});

test("long data is cut, and says so; short data is the same object", () => {
  const long = prompt("x".repeat(5000));
  assert.equal(Model.brief(long).data.prompt.length, 301);
  assert.equal(Model.brief(long).brief, true);
  const short = prompt("x");
  assert.equal(Model.brief(short), short);
});

// ---- the timeline

test("calls at the same time stand under each other, 4 lines at most", () => {
  const { marks, lines } = Model.packed([1, 2, 3, 4, 5].map((from) => ({ cursor: from, from, to: 100 })));
  assert.deepEqual(marks.map((mark) => mark.line), [0, 1, 2, 3, 3]);
  assert.equal(lines, 4);
  assert.equal(Model.packed([{ cursor: 1, from: 0, to: 5 }, { cursor: 2, from: 5, to: 9 }]).lines, 1);
});

test("idle time is folded, and time still rises from left to right", () => {
  const marks = [{ from: 0, to: 10_000 }, { from: 3_600_000, to: 3_610_000 }];
  const scale = Model.scaleOf(marks, { width: 1000 });
  assert.equal(scale.pieces.filter((piece) => piece.folded).length, 1);
  assert.ok(scale.x(10_000) - scale.x(0) > 400, "what goes on has the room");
  const times = [0, 5000, 10_000, 1_000_000, 3_600_000, 3_610_000].map(scale.x);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  const unfolded = Model.scaleOf(marks, { width: 1000, fold: false });
  assert.ok(unfolded.x(10_000) - unfolded.x(0) < 10);
});

test("a lane for each agent, the session's first; a running call reaches to now", () => {
  const rows = Model.rowsOf(logOf(call("a"), event("agent_spawned", { agentId: "w", type: "explorer" }, { agentId: "w" }), call("b", "Read", {}, { agentId: "w" })));
  const now = 1_800_000_000_000;
  const lanes = Model.lanesOf(rows, [{ agentId: "w", type: "explorer" }], now);
  assert.deepEqual(lanes.map((lane) => [lane.name, lane.marks.length]), [["session", 1], ["explorer", 2]]);
  assert.equal(lanes[0].marks[0].to, now);
});

test("the summary has what went wrong, what took longest, and the time by tool", () => {
  const { wrong, longest, tools } = Model.summaryOf(Model.rowsOf(logOf(call("a"), result("a"), call("b"), result("b", { durationMs: 90 }), call("c"), event("response", { type: "tool_error", toolUseId: "c", tool: "Bash", error: "no", durationMs: 1 }))));
  assert.deepEqual(wrong.map((row) => row.events[0].data.toolUseId), ["c"]);
  assert.deepEqual(longest.map((row) => row.took), [90, 7, 1]);
  assert.deepEqual(tools.map(({ title, calls, failed, took }) => [title, calls, failed, took]), [["Bash", 3, 1, 98]]);
});

// ---- diffs, JSON, text, addresses

test("a diff keeps what is common and numbers both sides", () => {
  assert.deepEqual(Model.diffLines("a\nb\nc", "a\nx\nc").map(({ sign, text, old, new: fresh }) => [sign, text, old, fresh]),
    [[" ", "a", 1, 1], ["-", "b", 2, null], ["+", "x", null, 2], [" ", "c", 3, 3]]);
  assert.deepEqual(Model.diffLines("", "a\nb").map((line) => line.sign), ["+", "+"]);
});

test("a diff of large texts is quick, if coarse", () => {
  const lines = (word) => Array.from({ length: 3000 }, (_, i) => `${word} ${i}`).join("\n");
  assert.equal(Model.diffLines(lines("a"), lines("b")).length, 6000);
});

test("what changed between two states, by path", () => {
  assert.deepEqual(Model.changes({ a: 1, list: [1, 2], same: {} }, { a: 2, list: [1, 2, 3], same: {}, more: null }),
    [{ path: "a", before: 1, after: 2 }, { path: "list[2]", before: undefined, after: 3 }, { path: "more", before: undefined, after: null }]);
});

test("JSON text is laid out without touching a number or a text", () => {
  const json = String.raw`{"n":1.0,"big":12345678901234567890,"t":"a\"{,}b","e":[],"o":{"x":[1,{"y":null}]}}`;
  assert.equal(Model.pretty(json).replace(/\n\s*/g, "").replaceAll('": ', '":'), json);
  assert.equal(Model.pretty('{"a":[1,{}]}'), '{\n  "a": [\n    1,\n    {}\n  ]\n}');
  assert.equal(Model.memberOf(json, "big"), "12345678901234567890");
  assert.equal(Model.memberOf(json, "none"), undefined);
  assert.deepEqual(Model.itemsOf('[{"a":"],["},2.50,"x,y"]'), ['{"a":"],["}', "2.50", '"x,y"']);
  assert.deepEqual(Model.itemsOf("[]"), []);
});

test("an address says where one is, and back", () => {
  for (const route of [{ view: "home", query: {} }, { view: "session", id: "a.b-c_D", tab: "state", query: { at: "7" } }, { view: "search", query: { q: "a b&c" } }]) assert.deepEqual(Model.routeOf(Model.hashOf(route)), route);
  assert.equal(Model.routeOf("#/session/x").tab, "log");
  assert.equal(Model.routeOf("#/session/x/nonsense").tab, "log");
  for (const odd of ["", "#", "#/nonsense", "#/session", "#/%zz", "#/session//log"]) assert.ok(Model.routeOf(odd).view);
});

test("agents that are each other's parents are all shown", () => {
  const shown = (nodes) => nodes.reduce((sum, node) => sum + 1 + shown(node.children), 0);
  assert.equal(shown(Model.agentTree([{ agentId: "a", parentAgentId: "b" }, { agentId: "b", parentAgentId: "a" }, { agentId: "c", parentAgentId: "c" }, { agentId: "d", parentAgentId: "a" }])), 4);
});

test("a terminal's colours are not shown as text", () => {
  assert.equal(Model.plain("\x1b[31mred\x1b[0m \x1b]0;title\x07\r\nend"), "red \nend");
});

test("durations read as a person would say them", () => {
  assert.deepEqual([7, 1500, 59_400, 65_000, 600_000, 5_400_000, 260_000_000].map(Model.lasting), ["7 ms", "1.5 s", "59 s", "1 min 5 s", "10 min", "1 h 30 min", "3 days"]);
  assert.deepEqual([100, 13_000, 65_000].map(Model.ago), ["now", "10 s", "1 min"]);
});

test("the rows in sight are found by their height", () => {
  const offsets = Model.offsetsOf([10, 20, 30], (height) => height);
  assert.deepEqual([0, 9, 10, 29, 30, 59, 999].map((y) => Model.rowAt(offsets, y)), [0, 0, 1, 1, 2, 2, 2]);
  assert.equal(Model.rowAt(Model.offsetsOf([], () => 1), 5), 0);
});

test("odd entries have a face, too", () => {
  for (const data of [{}, { type: null }, { type: 7 }, { type: "tool_call", input: null }, { type: "tool_call", tool: {}, input: [] }, { type: "prompt", prompt: {} }, { type: "assistant_message", message: [{ text: 1 }, null] }, { type: "x", attention: "yes" }, { type: "constructor" }, { type: "__proto__" }, { type: "tool_call", tool: "toString", input: {} }]) {
    const { title, text } = Model.face(event("action", data));
    assert.equal(typeof title, "string");
    assert.equal(typeof text, "string");
  }
});

test("a span of time has ends and bars that can be told apart", () => {
  const now = Date.parse("2026-02-13T20:59:30Z");
  assert.deepEqual(Model.spanOf({ range: "hour" }, now), { from: "2026-02-13T19:59:30.000Z", to: "", step: 60 });
  assert.deepEqual(Model.spanOf({}, now), { from: "2026-02-12T20:59:30.000Z", to: "", step: 3600 });
  assert.deepEqual(Model.spanOf({ range: "all" }, now), { from: "", to: "", step: 86400 });
  assert.deepEqual(Model.spanOf({ range: "days", from: "2026-02-01", to: "2026-02-02" }, now),
    { from: "2026-02-01T00:00:00.000Z", to: "2026-02-03T00:00:00.000Z", step: 3600 });
  assert.deepEqual(Model.spanOf({ range: "days", from: "nonsense", to: "" }, now), { from: "", to: "", step: 86400 });
});

test("a series has a number for each step, also where nothing happened", () => {
  const now = Date.parse("2026-02-13T20:03:30Z"), span = { from: "2026-02-13T20:00:10Z", to: "", step: 60 };
  const rows = [{ at: "2026-02-13T20:03:00Z", events: 5 }, { at: "2026-02-13T20:01:00Z", events: 2 }];
  assert.deepEqual(Model.seriesOf(rows, span, now, "events").map((bar) => bar.number), [0, 2, 0, 5]);
  assert.equal(Model.seriesOf(rows, span, now, "events")[0].at, Date.parse("2026-02-13T20:00:00Z"));
  const closed = { from: "2026-02-13T20:00:00Z", to: "2026-02-13T20:02:00Z", step: 60 };
  assert.deepEqual(Model.seriesOf(rows, closed, now, "events").map((bar) => bar.number), [0, 2]);
  assert.deepEqual(Model.seriesOf(rows, { from: "", to: "", step: 60 }, now, "events").map((bar) => bar.number), [2, 0, 5]);
  assert.equal(Model.seriesOf([], { from: "2000-01-01T00:00:00Z", to: "", step: 60 }, now, "events").length, 400);
});
