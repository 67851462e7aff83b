// The page's model: `node --test tests/node/page.test.mjs`.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as Model from "../../dashboard/model.js";
import * as Spans from "../../dashboard/model/spans.js";
import * as Timeline from "../../dashboard/model/timeline.js";
import vocabulary from "../../dashboard/vocabulary.js";

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

test("the server's answer wins, and over it comes what events have told since", () => {
  const state = Model.reduce(stateWith(card()), prompt("newer"));
  const older = Model.loaded(state, { stats: null, cards: [card({ lastCursor: state.cursor - 1, cost: { usd: 1 } })] });
  assert.deepEqual([older.cards.get("s").lastPrompt, older.cards.get("s").cost.usd, older.stale], ["newer", 1, true]);
  const newer = Model.loaded(state, { stats: null, cards: [card({ lastCursor: state.cursor, lastPrompt: "from the server" })] });
  assert.equal(newer.cards.get("s").lastPrompt, "from the server");
  assert.equal(newer.stale, false);
});

const shownOf = (state, choice) => Model.feedShown(state.feed, state.names, choice);
const idle = (members) => card({ status: "waiting", attention: { reason: "input", since: "2026-01" }, ...members });
const asks = (members, attention) => card({ status: "waiting", attention: { reason: "permission", message: "May I?", since: "2026-01", askId: `ask-${members.sessionId}`, ...attention }, ...members });
const sections = (state, choice = {}) => Model.sectionsOf(state.cards, Model.openAsks(state.cards, new Map()), choice)
  .map(({ key, asks, cards }) => [key, ...(asks ?? cards).map((one) => one.sessionId)]);
test("what people are asked comes first, then what runs and does not change places, apart from that what is idle, then what has ended", () => {
  const state = stateWith(asks({ sessionId: "b" }, { since: "2026-02" }), asks({ sessionId: "a" }), idle({ sessionId: "i" }), idle({ sessionId: "e", attention: { reason: "input", error: "rate_limit", message: "429", since: "2026-03" } }),
    card({ sessionId: "x", created: "2026-03", lastCursor: 1 }), card({ sessionId: "y", created: "2026-02", lastCursor: 9 }), card({ sessionId: "p", pinned: true }),
    card({ sessionId: "ok", status: "completed", lastCursor: 8 }), card({ sessionId: "z", status: "lost", lastCursor: 5 }), card({ sessionId: "bad", status: "failed", lastCursor: 4 }));
  assert.deepEqual(sections(state), [["asks", "a", "b", "e"], ["running", "p", "x", "y"], ["idle", "i"], ["ended", "bad", "z", "ok"]]);
  assert.deepEqual(sections(state, { seen: { upTo: 4, ids: ["z 5"] } }).at(-1), ["ended", "ok"], "what was acknowledged is gone");
  assert.deepEqual(sections(state, { status: "waiting" }).map(([key]) => key), ["asks", "idle"]);
  assert.deepEqual(sections(state, { words: "Y" }), [["running", "y"]]);
});

test("groups have their worst state on their head and come in its order; one folded shows its head only", () => {
  const of = (project, members) => ({ ...members, project, userId: "alice", tags: [project, "all"] });
  const state = stateWith(of("calm", card({ sessionId: "c" })), of("asking", asks({ sessionId: "q" })), of("asking", card({ sessionId: "r" })), of("broken", card({ sessionId: "b", status: "failed", lastCursor: 3 })), of("broken", idle({ sessionId: "i" })));
  const groups = Model.sectionsOf(state.cards, [], { group: "project" }).filter(({ worst }) => worst);
  assert.deepEqual(groups.map(({ title, worst, cards }) => [title, worst, cards.length]), [["asking", "asks", 2], ["broken", "failed", 2], ["calm", "active", 1]]);
  assert.deepEqual(sections(state, { group: "tag" }).find(([key]) => key === "tag:all").length, 6);
  assert.deepEqual(Model.listOf(groups, new Set(["project:asking"])).map(({ key }) => key).slice(0, 3), ["head project:asking", "head project:broken", "row project:broken b"]);
});

test("sessions are sorted by what one asks, and those that are alike do not change places", () => {
  const cards = [card({ sessionId: "a", errors: 1, cost: { usd: 2 }, created: "2026-02" }), card({ sessionId: "b", errors: 3, cost: { usd: 1 } }), card({ sessionId: "c", updated: "2025-01-01" })];
  const by = (sort) => Model.sorted(cards, sort).map(({ sessionId }) => sessionId).join("");
  assert.deepEqual([by(""), by("errors"), by("cost"), by("quiet"), by("nonsense")], ["abc", "bac", "abc", "cab", "abc"]);
});

test("what is asked is said to the letter, and what was answered is asked no more", () => {
  const state = stateWith(asks({ sessionId: "a" }, { tool: "Bash", message: "Bash: make" }));
  const served = new Map([["ask-a", { askId: "ask-a", status: "open", canAnswer: true, input: { command: "make all\nmake install" }, tool: "Bash" }]]);
  const [ask] = Model.openAsks(state.cards, served);
  assert.deepEqual([ask.canAnswer, Model.askText(ask)], [true, "Bash: make all\nmake install"]);
  assert.equal(Model.openAsks(state.cards, new Map())[0].canAnswer, false, "nobody is known to wait");
  assert.deepEqual(Model.openAsks(state.cards, served, new Set(["ask-a"])), []);
  assert.deepEqual(Model.questionsOf({ input: { questions: [{ question: "Which?", options: [{ label: "one" }, "two"] }] } }), [{ question: "Which?", options: ["one", "two"] }]);
  assert.deepEqual(Model.questionsOf({ text: "Why?", options: null }), [{ question: "Why?", options: [] }]);
});

test("figures are short, and what has no price is not free", () => {
  assert.deepEqual([0, 950, 1234, 34_499, 999_600, 12_345_678].map(Model.figure), ["0", "950", "1.2k", "34k", "1.0M", "12M"]);
  assert.deepEqual([undefined, { usd: null, unpricedRequests: 2 }, { usd: 1.5, unpricedRequests: 1 }, { usd: 207.4, unpricedRequests: 0 }].map(Model.money), ["", "unpriced", "$1.50+", "$207"]);
});

test("the feed keeps its newest, asks and failures longer, and has levels", () => {
  const failed = event("response", { type: "error", message: "out of memory" });
  const state = Model.reduceAll(stateWith(), [failed, ...Array.from({ length: 700 }, (_, i) => prompt(`number ${i}`)), event("state_updated", { phase: "x" }), event("action", { type: "post_tool_batch" })]);
  assert.equal(state.feed.length, 501);
  assert.equal(shownOf(state)[0].text, "number 699");
  assert.equal(shownOf(state, { kind: "talk", words: "NUMBER 69" }).length, 10);
  assert.deepEqual(shownOf(state, { kind: "asks" }).map(({ title }) => title), ["Error"]);
  assert.deepEqual(shownOf(state, { kind: "all" }).slice(0, 2).map(({ title }) => title), ["Tool batch", "State"]);
});

test("a call and its result are one line of the feed, which grows; what repeats is folded, what failed is not", () => {
  let state = Model.reduceAll(stateWith(), [call("a"), call("b", "Read", { file_path: "x" }, { sessionId: "other" })]);
  const lines = () => shownOf(state).map(({ title, times, state, sessionId }) => [title, times, state, sessionId]);
  assert.deepEqual(lines(), [["Read", 1, "running", "other"], ["Bash", 1, "running", "s"]]);
  state = Model.reduceAll(state, [result("a"), result("b", { type: "tool_error", error: "no file\nmore" }, { sessionId: "other" }), call("c"), result("c"), call("d"), result("d")]);
  assert.deepEqual(lines(), [["Bash", 3, "ok", "s"], ["Read", 1, "error", "other"]]);
  assert.deepEqual(shownOf(state, { kind: "asks" }).map(({ error }) => error), ["no file"]);
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

// ---- what is true

const answer = (message = "Done", more) => event("response", { type: "assistant_message", message }, more);
const failed = (id, error = "boom", members = {}, more) => event("response", { type: "tool_error", toolUseId: id, tool: "Bash", error, ...members }, more);
const inside = (agentId) => ({ agentId });

test("an empty error is none, whatever it is made of", () => {
  for (const error of ["", null, false, {}, []]) assert.equal(Model.isError(event("response", { type: "x", ok: true, error })), false, JSON.stringify(error));
  for (const error of ["boom", { code: 1 }, ["x"], true, 0]) assert.equal(Model.isError(event("response", { type: "x", error })), true, JSON.stringify(error));
  assert.deepEqual(Model.rowsOf(logOf(call("a"), result("a", { error: "" }))).map((row) => [row.state, row.error]), [["ok", ""]]);
});

test("what a person said no to, or broke off, is rejected and no failure", () => {
  const words = "The user doesn't want to proceed with this tool use. The tool use was rejected";
  for (const members of [{ rejected: true }, { is_interrupt: true }, { error: words }, { error: words.replace("'", "\u2019") }, { error: "[Request interrupted by user for tool use]" }]) {
    const begun = call("a"), no = failed("a", "x", members), log = logOf(begun, no);
    assert.deepEqual(states(log), ["rejected"], JSON.stringify(members));
    assert.equal(Model.isError(no) || Model.isAskedFor(no, { errors: "yes" }), false);
    assert.deepEqual(Timeline.summaryOf(Model.rowsOf(log)).wrong, []);
    assert.equal(Timeline.summaryOf(Model.rowsOf(log)).tools[0].failed, 0);
  }
  for (const members of [{}, { is_interrupt: false }, { error: "He said: The user doesn't want to" }, { refused: true }]) assert.deepEqual(states(logOf(call("a"), failed("a", "x", members))), ["error"], JSON.stringify(members));
});

test("ids that restart are told apart: by run, and by what has its result already", () => {
  const ofRun = (runId, id = "call_0") => [event("action", { type: "tool_call", toolUseId: id, runId, tool: "ask", input: {} }), (type, members) => event("response", { type, toolUseId: id, runId, tool: "ask", ...members })];
  const [one, saysOne] = ofRun("r1"), [two, saysTwo] = ofRun("r2");
  assert.deepEqual(states(logOf(one, two, saysOne("tool_error", { error: "boom" }), saysTwo("tool_result", { output: 1 }))), ["error", "ok"], "by run");
  const [first, says] = ofRun(undefined), [second] = ofRun(undefined);
  assert.deepEqual(states(logOf(first, says("tool_result", { output: "fine" }), second, says("tool_error", { error: "boom" }))), ["ok", "error"], "by order");
  const [third] = ofRun("r3");
  assert.deepEqual(states(logOf(first, third, says("tool_result", {}))), ["ok", "running"], "a result of no run is not of one");
});

test("a call that was told twice is one, also after its result where ids are Claude Code's", () => {
  const hooked = (type, data) => event(type, { hook_event_name: "X", ...data });
  const told = () => hooked("action", { type: "tool_call", toolUseId: "toolu_1", tool: "Bash", input: { command: "ls" } });
  const ended = () => hooked("response", { type: "tool_result", toolUseId: "toolu_1", tool: "Bash", output: 1 });
  assert.deepEqual(states(logOf(told(), ended(), told(), ended())), ["ok"]);
  assert.deepEqual(states(logOf(call("a"), call("a"))), ["running"]);
  assert.deepEqual(states(logOf(call("a"), call("a", "Bash", { command: "other" }))), ["running", "running"], "with another input it is another");
});

test("a result that came before its call is the call's, with its time", () => {
  const early = result("a", { output: 1 }), late = call("a");
  const [row, ...rest] = Model.rowsOf(logOf(early, late));
  assert.deepEqual([row.state, row.text, row.events.map((each) => each.data.type), rest.length], ["ok", "true", ["tool_call", "tool_result"], 0]);
  assert.equal(row.took, null, "by the clocks it took less than no time");
  const [measured] = Model.rowsOf(logOf(result("b"), call("b")));
  assert.equal(measured.took, 7);
  const piece = { ...logOf(result("a"), call("a")), begins: false };
  assert.deepEqual(states(piece), ["ok", "running"], "in a piece it may be of an earlier call");
});

test("no duration is less than none, whoever's clock is wrong", () => {
  const behind = { timestamp: new Date(0).toISOString() };
  for (const [members, took] of [[{ durationMs: undefined }, null], [{ durationMs: -5 }, null], [{ durationMs: 9 }, 9]]) assert.equal(Model.rowsOf(logOf(call("a"), result("a", members, behind)))[0].took, took);
  assert.deepEqual([Model.lasting(-1), Model.lasting(NaN), Model.lasting(0)], ["", "", "0 ms"]);
  const spawned = event("agent_spawned", { agentId: "w", type: "x" }, inside("w"));
  assert.deepEqual(Model.rowsOf(logOf(spawned, event("agent_completed", { agentId: "w" }, { ...inside("w"), ...behind }))).map((row) => row.took), [null, null]);
});

test("a call without a result is open only while its turn goes on", () => {
  assert.deepEqual(states(logOf(call("a"), answer()))[0], "cancelled", "a Stop");
  assert.deepEqual(states(logOf(call("a"), event("response", { type: "error", error: "rate_limit", attention: { reason: "input" } })))[0], "cancelled", "a StopFailure");
  assert.deepEqual(states(logOf(call("a"), event("response", { type: "error", error: "x" })))[0], "running", "any other error ends no turn");
  assert.deepEqual(states(logOf(call("a"), answer("Done", inside("w"))))[0], "running", "another agent's Stop");
  assert.deepEqual(states(logOf(call("a", "Bash", {}, inside("w")), answer()))[0], "running", "a sub-agent's call goes on behind");
  assert.deepEqual(states(logOf(call("a", "Bash", {}, inside("w")), answer("Done", inside("w"))))[0], "cancelled");
  assert.deepEqual(states(logOf(call("a"), answer(), result("a")))[0], "ok", "and a late result is one");
  const open = logOf(call("a"), call("b", "Bash", {}, inside("w")));
  const told = (about) => Model.rowsOf(open, about).map((row) => row.state);
  assert.deepEqual([told({}), told({ idle: true }), told({ over: true })], [["running", "running"], ["cancelled", "running"], ["cancelled", "cancelled"]]);
});

test("a batch closes the calls that it names, and says how", () => {
  const batch = (...calls) => event("action", { type: "post_tool_batch", tool_calls: [null, ...calls.map(([tool_use_id, tool_response]) => ({ tool_use_id, tool_response }))] });
  const rows = Model.rowsOf(logOf(call("a"), call("b"), call("c"), call("d"), batch(["a", "fine"], ["b", "<tool_use_error>No such tool</tool_use_error>"], ["c", [{ type: "text", text: "The user doesn't want to take this action right now" }]], ["none", "x"])));
  assert.deepEqual(rows.slice(0, 4).map((row) => [row.state, row.error]), [["ok", ""], ["error", "No such tool"], ["rejected", "The user doesn't want to take this action right now"], ["running", ""]]);
  const denied = event("action", { type: "permission_denied", toolUseId: "e", tool: "Bash", reason: "Classifier unavailable" });
  assert.deepEqual(Model.rowsOf(logOf(call("e"), denied)).map((row) => [row.state, row.error, row.events.length]), [["error", "Classifier unavailable", 2]]);
});

test("the first line of an error says what went wrong", () => {
  const lines = [["boom\nat line 3", "boom"], ["Exit code 3\nmake: no rule", "Exit code 3: make: no rule"], ["Exit code 3", "Exit code 3"], ["\n\n  late", "late"], [{ type: "TypeError", message: "x is no function" }, "x is no function"], ["<tool_use_error>No such tool</tool_use_error>", "No such tool"], ["\x1b[31mred\x1b[0m", "red"], [{ code: 7 }, '{"code":7}'], ["", ""]];
  for (const [error, line] of lines) assert.equal(Model.errorLine(failed("a", error)), line, JSON.stringify(error));
  assert.equal(Model.errorLine(event("response", { type: "error", error: "unknown", message: "API Error: 400 no" })), "API Error: 400 no");
  assert.equal(Model.errorLine(event("response", { type: "x", exitCode: 2 })), "exit code 2");
});

const NOTICES = ["<task-notification>\n<task-id>a1</task-id>\n<summary>Agent \"x\" completed</summary>\n</task-notification>", "<command-name>/clear</command-name><command-args>now</command-args>", " <command-message>init</command-message>", "<local-command-stdout>ok</local-command-stdout>", "<system-reminder>Be brief</system-reminder>"];
test("what a machine says as a prompt is no person's", () => {
  const waiting = card({ status: "waiting", attention: { reason: "permission", message: "rm", tool: "Bash" }, lastPrompt: "Build the shop" });
  for (const data of [...NOTICES.map((text) => ({ prompt: text })), { prompt: "anything", machineMade: true }]) {
    const notice = event("action", { type: "prompt", ...data }), row = Model.rowsOf(logOf(notice))[0];
    assert.deepEqual([row.kind, row.title], ["notice", "System notice"], data.prompt);
    assert.doesNotMatch(row.text, /[<>]/);
    const after = Model.reduce({ ...stateWith(waiting), cursor: 0 }, notice).cards.get("s");
    assert.deepEqual([after.status, after.attention.message, after.lastPrompt], ["waiting", "rm", "Build the shop"], "it answers nothing");
    assert.equal(states(logOf(call("a"), notice))[0], "running", "nor ends a turn");
  }
  assert.deepEqual(NOTICES.map((text) => Model.face(prompt(text)).text), ['Agent "x" completed', "/clear now", "init", "ok", "Be brief"]);
  for (const text of ["<div>Why is this red?</div>", "Say <task-notification> to me", "<task-notifications>"]) assert.equal(Model.face(prompt(text)).kind, "prompt", text);
});

const asking = (agentId, message, more = {}) => event("action", { type: "permission_request", tool: "Bash", input: { command: message }, attention: { reason: "permission", message } }, { ...(agentId ? inside(agentId) : {}), ...more });
test("several questions are kept, and each is answered by what answers it", () => {
  let state = stateWith(card());
  const tell = (next) => { state = Model.reduce(state, next); const now = state.cards.get("s"); return [now.status, ...Model.askLines(now)]; };
  assert.deepEqual(tell(asking("w1", "rm x")), ["waiting", "w1: rm x"]);
  assert.deepEqual(tell(asking("w2", "rm y")), ["waiting", "w1: rm x", "w2: rm y"]);
  assert.deepEqual(Model.askLines(state.cards.get("s"), new Map([["s w1", "Explore"]])), ["Explore: rm x", "w2: rm y"]);
  assert.deepEqual(tell(asking(null, "rm z")), ["waiting", "w1: rm x", "w2: rm y", "rm z"]);
  assert.deepEqual(tell(asking(null, "rm z")).length, 4, "asked twice, it is one");
  assert.equal(Model.statusWords(state.cards.get("s")), "asks 3 things");
  assert.deepEqual(tell(result("t", { input: { command: "other" } }, inside("w2"))).length, 4, "another call's result answers nothing");
  assert.deepEqual(tell(result("t", { input: { command: "rm x" } }, inside("w1"))), ["waiting", "w2: rm y", "rm z"]);
  assert.deepEqual(tell(prompt("go on")), ["waiting", "w2: rm y"], "a person's prompt is the main agent's");
  assert.deepEqual(tell(event("response", { type: "assistant_message", message: "x", attention: { reason: "input", message: "x" } })), ["waiting", "w2: rm y"], "the prompt does not take the place of a question");
  assert.deepEqual(tell(event("action", { type: "x", attention: null }, inside("w2"))), ["active"]);
});

test("a card that asks says its question once; one that sits at its prompt says what it did", () => {
  const asked = Model.reduceAll(stateWith(card()), [call("t"), asking(null, "Bash: rm")]).cards.get("s");
  assert.deepEqual([Model.step(asked), Model.askLines(asked), Model.statusWords(asked)], ["", ["Bash: rm"], "asks permission"]);
  const idle = Model.reduceAll(stateWith(card()), [call("t"), answer("Done", {})]).cards.get("s");
  assert.equal(Model.step({ ...idle, status: "waiting", attention: { reason: "input", message: "Done" } }), "Bash: true");
  assert.equal(Model.statusWords({ status: "waiting", attention: { reason: "input", message: "429", error: "rate_limit" } }), "stopped by an error");
  assert.equal(Model.statusWords({ status: "waiting", attention: { reason: "plan", message: "1. do" } }), "asks about a plan");
});

test("an end says its reason in words, and its status only if one was said", () => {
  const end = (data) => { const { title, text, kind } = Model.face(event("session_finalized", data)); return [title, text, kind]; };
  assert.deepEqual(end({ status: "success", reason: "other" }), ["Session ended", "other", "session"]);
  assert.deepEqual(end({ reason: "prompt_input_exit" }), ["Session ended", "left at the prompt", "session"]);
  assert.deepEqual(end({ status: "failed", reason: "other", error: "API Error: 400 no" }), ["Session failed", "API Error: 400 no", "error"]);
  assert.deepEqual(end({ status: "cancelled", reason: "other" }), ["Session cancelled", "other", "session"]);
  assert.deepEqual(end({ status: "success", outcome: "All tests pass", reason: "x" })[1], "All tests pass");
  const after = (data) => Model.reduce(stateWith(card()), event("session_finalized", data)).cards.get("s").status;
  assert.deepEqual([after({}), after({ status: "failed" }), after({ status: "cancelled" }), after({ hook_event_name: "SessionEnd", reason: "other" })], ["completed", "failed", "cancelled", "active"]);
  assert.equal(Model.endedBy(card({ status: "failed", end: { error: "API Error: 400 no", reason: "other" } })), "API Error: 400 no");
  assert.equal(Model.endedBy(card({ status: "completed", end: { error: "x" } })), "");
});

test("compaction is no agent", () => {
  const done = event("agent_completed", { agentId: "a7107e0f610bdc4dc", type: "internal", status: "completed", result: "<analysis>\nstub\n</analysis>\n\n<summary>\n1. Intent\n</summary>" }, inside("a7107e0f610bdc4dc"));
  const { kind, title, text } = Model.face(done);
  assert.deepEqual([kind, title, text], ["other", "Compaction", "1. Intent"]);
  assert.deepEqual(Timeline.lanesOf(Model.rowsOf(logOf(done)), [], 0).map((lane) => [lane.id, lane.marks.length]), [["", 1]], "nor has it a lane");
  assert.equal(Model.face(event("agent_completed", { agentId: "b", type: "Explore", result: "found" })).title, "Explore completed");
  assert.deepEqual([{ type: "internal" }, { type: "" }, { type: "Explore" }, {}].map(Model.isInternal), [true, true, false, false]);
});

test("goals and agents go by their names, in the log and in the feed", () => {
  const events = [event("goal_added", { id: "goal-3", description: "Build the API" }), event("goal_updated", { goalId: "goal-3", status: "in_progress" }),
    event("agent_spawned", { agentId: "pipeline.fetch", type: "fetch", task: '{"question":"mail 1"}' }), event("agent_completed", { agentId: "pipeline.fetch", status: "completed", result: '{"answer":"spam"}' }),
    event("agent_updated", { agentId: "pipeline.fetch", status: "running" }), event("agent_completed", { agentId: "a1", status: "failed" })];
  const wanted = [["Goal", "Build the API"], ["Goal in progress", "Build the API"], ["fetch begins", "mail 1"], ["fetch completed", "spam"], ["fetch begins again", ""], ["Explore failed", ""]];
  const names = new Map([["s a1", "Explore"]]);
  assert.deepEqual(Model.rowsOf(logOf(...events), { names }).map((row) => [row.title, row.text]), wanted);
  assert.deepEqual(shownOf(Model.reduceAll({ ...stateWith(), names }, events)).map((line) => [line.title, line.text]).reverse(), wanted);
  assert.deepEqual(["pipeline.fetch", "email", "3f2c1a9b-1111-4111-8111-111111111111", "ac4e90491f057557a"].map((agentId) => Model.agentName({ agentId })), ["fetch", "email", "3f2c1a9b", "ac4e9049"]);
});

test("an agent that begins again has a span and a duration for each run, and its first end is its end", () => {
  const at = (seconds) => ({ timestamp: new Date(1_700_000_000_000 + seconds * 1000).toISOString(), agentId: "w" });
  const events = [event("agent_spawned", { agentId: "w", type: "fetch" }, at(0)), event("agent_completed", { agentId: "w" }, at(1)), event("agent_completed", { agentId: "w" }, at(9)),
    event("agent_updated", { agentId: "w", status: "running" }, at(50)), event("agent_updated", { agentId: "w", status: "running", task: "more" }, at(51)), event("agent_completed", { agentId: "w" }, at(52))];
  const rows = Model.rowsOf(logOf(...events));
  assert.deepEqual(rows.map((row) => row.took), [null, 1000, null, null, null, 2000]);
  const lane = Timeline.lanesOf(rows, [{ agentId: "w", type: "fetch" }], 0).find((each) => each.id === "w");
  assert.deepEqual(lane.spans.map(({ from, to }) => to - from), [1000, 2000]);
  assert.deepEqual(Model.runsOf(events).get("w").map(Model.lastingOf), [1000, 2000]);
});

test("a worktree's project is the repository's folder", () => {
  const folders = { "/home/dev/shop": "shop", "/home/dev/shop/.claude/worktrees/agent-1": "shop", "/home/dev/shop/.claude/worktrees/agent-1/src/a": "shop", "/srv/shop/worktrees/x": "shop", "/srv/shop/.worktrees/x": "shop", "/srv/shop/.git/worktrees/x": "shop", "/srv/worktrees": "worktrees", "/worktrees/x": "x", "C:\\work\\shop\\.claude\\worktrees\\a": "shop", "": "" };
  assert.deepEqual(Object.keys(folders).map((cwd) => Model.project({ cwd })), Object.values(folders));
});

// ---- text

const SPOOFS = ["\x1b[2J\x1b[H\x1b[31mX\x1b[0m\x1b]0;T\x07", "passwd\b\b\b\b\b\bSPOOF", "safe \u202egnp.exe\u202c", "a real command\rb", "a\x0bb\x0cc", "\x9b31mred\x9b0m", "\x1bP1;2|payload\x1b\\after", "\u2066abc\u2069", "\u200eleft\u200f", "half \ud83d", "\x1b(0box\x1b(B", "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "a\x00b\x7f", "x\x1b[31"];
const UNFIT = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
test("text is fit for people wherever it is made to be shown", () => {
  for (const text of SPOOFS) {
    assert.match(text, UNFIT, "it would be found");
    const attention = { reason: "permission", message: text }, events = [prompt(text), call("t", text, { command: text }), failed("t", text), asking(text, text), answer(text), event("goal_added", { id: "g", description: text }), event("agent_spawned", { agentId: "w", type: text, task: text }), event("session_finalized", { status: "failed", outcome: text }), event(text, { [text]: text }), event("action", { type: text, x: text })];
    const about = card({ title: text, currentStep: text, phase: text, cwd: `/a/${text}`, status: "waiting", attention, lastAction: { tool: text, type: text, text } });
    const state = Model.reduceAll(stateWith(about), events.slice(0, -3));
    const shown = [...shownOf(state, { kind: "all" }).flatMap((line) => [line.title, line.text, line.error]), ...Model.rowsOf(logOf(...events)).flatMap((row) => [row.title, row.text, row.error]), Model.nameOf(about), Model.step({ ...about, status: "active" }), Model.project(about), ...Model.askLines(about),
      Model.title(1, text), Model.forPeople(text), Model.plain(text), Model.endText({ reason: text }), Model.pretty(Model.forReaders(JSON.stringify({ text })))];
    for (const each of shown) assert.doesNotMatch(each, UNFIT, JSON.stringify([text, each]));
  }
  assert.deepEqual(SPOOFS.map(Model.forPeople), ["X", "passwd␈␈␈␈␈␈SPOOF", "safe gnp.exe", "a real command␍b", "a␋b␌c", "red", "after", "abc", "left", "half \ufffd", "box", "link", "a␀b␡", "x"]);
  for (const text of ["plain", "tab\tand\nlines", "Zoë 日本語 👩‍👩‍👧‍👦 עברית العربية"]) assert.equal(Model.forPeople(text), text);
  assert.equal(Model.plain("10%\r20%\r\ndone"), "10%\n20%\ndone");
  assert.deepEqual(JSON.parse(Model.forReaders(JSON.stringify(SPOOFS))), SPOOFS, "JSON stays what it is");
});

test("a hostile text takes no longer than it is long", () => {
  const begun = performance.now();
  for (const piece of ["\x1b]", "\x1bP", "\x1b[", "\x1b[1;", "\x9d", "\x1b ", "\u202e"]) Model.forPeople(piece.repeat(200_000));
  assert.ok(performance.now() - begun < 2000, `${performance.now() - begun} ms`);
});

test("a text is cut between characters, also those that are made of several", () => {
  const [family, flag, accent] = ["👩‍👩‍👧‍👦", "🇩🇪", "e\u0301"];
  for (const one of [family, flag, accent, "\u{1f600}", "👍🏽"]) for (let before = 280; before < 300; before++) {
    const cut = Model.oneLine("a".repeat(before) + one + "b".repeat(400));
    assert.match(cut, new RegExp(`^a+(?:${one}b*)?$`, "u"), `${one} after ${before}`);
    assert.ok(cut.length <= 300 && cut.length > 280);
    assert.ok(Model.brief(prompt("a".repeat(before) + one + "b".repeat(900))).data.prompt.isWellFormed());
  }
  assert.equal(Model.upTo("\u0301".repeat(900), 300).length, 300, "what is all one character is cut all the same");
});

// ---- the timeline

test("calls at the same time stand under each other, 4 lines at most", () => {
  const { marks, lines } = Timeline.packed([1, 2, 3, 4, 5].map((from) => ({ cursor: from, from, to: 100 })));
  assert.deepEqual(marks.map((mark) => mark.line), [0, 1, 2, 3, 3]);
  assert.equal(lines, 4);
  assert.equal(Timeline.packed([{ cursor: 1, from: 0, to: 5 }, { cursor: 2, from: 5, to: 9 }]).lines, 1);
});

test("idle time is folded, and time still rises from left to right", () => {
  const marks = [{ from: 0, to: 10_000 }, { from: 3_600_000, to: 3_610_000 }];
  const scale = Timeline.scaleOf(marks, { width: 1000 });
  assert.equal(scale.pieces.filter((piece) => piece.folded).length, 1);
  assert.ok(scale.x(10_000) - scale.x(0) > 400, "what goes on has the room");
  const times = [0, 5000, 10_000, 1_000_000, 3_600_000, 3_610_000].map(scale.x);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  const unfolded = Timeline.scaleOf(marks, { width: 1000, fold: false });
  assert.ok(unfolded.x(10_000) - unfolded.x(0) < 10);
});

test("a lane for each agent, the session's first; a running call reaches to now", () => {
  const rows = Model.rowsOf(logOf(call("a"), event("agent_spawned", { agentId: "w", type: "explorer" }, { agentId: "w" }), call("b", "Read", {}, { agentId: "w" })));
  const now = 1_800_000_000_000;
  const lanes = Timeline.lanesOf(rows, [{ agentId: "w", type: "explorer" }], now);
  assert.deepEqual(lanes.map((lane) => [lane.name, lane.marks.length]), [["session", 1], ["explorer", 2]]);
  assert.equal(lanes[0].marks[0].to, now);
});

test("the summary has what went wrong, what took longest, and the time by tool", () => {
  const { wrong, longest, tools } = Timeline.summaryOf(Model.rowsOf(logOf(call("a"), result("a"), call("b"), result("b", { durationMs: 90 }), call("c"), event("response", { type: "tool_error", toolUseId: "c", tool: "Bash", error: "no", durationMs: 1 }))));
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
  assert.equal(Model.routeOf("#/session/x").tab, "conversation");
  assert.equal(Model.routeOf("#/session/x/nonsense").tab, "conversation");
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
  assert.deepEqual(Spans.spanOf({ range: "hour" }, now), { from: "2026-02-13T19:59:30.000Z", to: "", step: 60 });
  assert.deepEqual(Spans.spanOf({}, now), { from: "2026-02-12T20:59:30.000Z", to: "", step: 3600 });
  assert.deepEqual(Spans.spanOf({ range: "all" }, now), { from: "", to: "", step: 86400 });
  assert.deepEqual(Spans.spanOf({ range: "days", from: "2026-02-01", to: "2026-02-02" }, now),
    { from: "2026-02-01T00:00:00.000Z", to: "2026-02-03T00:00:00.000Z", step: 3600 });
  assert.deepEqual(Spans.spanOf({ range: "days", from: "nonsense", to: "" }, now), { from: "", to: "", step: 86400 });
});

test("a series has a number for each step, also where nothing happened", () => {
  const now = Date.parse("2026-02-13T20:03:30Z"), span = { from: "2026-02-13T20:00:10Z", to: "", step: 60 };
  const rows = [{ at: "2026-02-13T20:03:00Z", events: 5 }, { at: "2026-02-13T20:01:00Z", events: 2 }];
  assert.deepEqual(Spans.seriesOf(rows, span, now, "events").map((bar) => bar.number), [0, 2, 0, 5]);
  assert.equal(Spans.seriesOf(rows, span, now, "events")[0].at, Date.parse("2026-02-13T20:00:00Z"));
  const closed = { from: "2026-02-13T20:00:00Z", to: "2026-02-13T20:02:00Z", step: 60 };
  assert.deepEqual(Spans.seriesOf(rows, closed, now, "events").map((bar) => bar.number), [0, 2]);
  assert.deepEqual(Spans.seriesOf(rows, { from: "", to: "", step: 60 }, now, "events").map((bar) => bar.number), [2, 0, 5]);
  assert.equal(Spans.seriesOf([], { from: "2000-01-01T00:00:00Z", to: "", step: 60 }, now, "events").length, 400);
});

test("a price is never 0 where none is known", () => {
  assert.deepEqual([{ costUsd: null, unpricedRequests: 2 }, { costUsd: 1.5, unpricedRequests: 3 }, { costUsd: 0.0012 }, { usd: 0 }, {}].map(Model.price),
    ["unpriced", "$1.50 + 3 unpriced", "$0.0012", "$0.00", ""]);
});
test("the line that resumes a session cannot be more than that", () => {
  assert.equal(Model.resumeLine({ sessionId: "a-1", cwd: "/x; rm -rf '~'\n" }), "cd '/x; rm -rf '\\''~'\\''' && claude --resume a-1");
  assert.equal(Model.resumeLine({ sessionId: "a-1", where: { container: "c0ffee", cwd: "/srv" } }), "docker exec -it -w /srv c0ffee claude --resume a-1");
});
test("a place on the scale is a time and back", () => {
  const scale = Timeline.scaleOf([{ from: 0, to: 1000 }, { from: 900_000, to: 901_000 }], { width: 500 });
  for (const time of [0, 500, 1000, 900_500]) assert.ok(Math.abs(scale.time(scale.x(time)) - time) < 5);
});
