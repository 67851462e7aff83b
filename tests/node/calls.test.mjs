// What each call of the Node agent becomes in the store, and what it takes.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import * as named from '../../containers/hook_agent.mjs';
import { Store, assertQuiet, deadOf, environment, newFolder, newSession, run } from './surroundings.mjs';

const { SessionHookAgent } = named;
const store = await Store.create();
const CALLS = [
  'logAction', 'logResponse', 'updateState', 'addGoal', 'updateGoal', 'spawnAgent', 'completeAgent', 'finalizeSession',
  'testConnection', 'resume', 'flush', 'close', 'enter',
];

function newAgent(options = {}) {
  const spoolDir = newFolder();
  const agent = new SessionHookAgent({ serviceUrl: store.url, sessionId: newSession(), spoolDir, ...options });
  return { agent, spoolDir, events: () => store.events(agent.sessionId) };
}

/** The data of the one action that this becomes. */
async function stored(action) {
  const { agent, spoolDir, events } = newAgent();
  await agent.logAction({ type: 'note', ...action });
  assert.equal(await agent.flush(), true);
  assert.deepEqual(deadOf(spoolDir), []);
  return (await events()).at(-1).data;
}

test('each call becomes its event, in the order of the calls', async () => {
  const { agent, events } = newAgent({ userId: 'alice' });
  await agent.logAction({ type: 'file_write', path: 'src/server.js', lines: 42 });
  await agent.logResponse({ type: 'tool_result', ok: true });
  await agent.updateState({ phase: 'implementation' });
  const goal = await agent.addGoal({ description: 'Build REST API', priority: 'high' });
  await agent.updateGoal(goal.id, { status: 'completed' });
  const worker = await agent.spawnAgent({ type: 'backend-dev', task: 'Implement authentication' });
  await agent.completeAgent(worker.agentId, { result: 'done' });
  await agent.finalizeSession({ status: 'success', outcome: 'All done', exitCode: 0 });
  assert.equal(await agent.flush(), true);

  const found = await events();
  assert.deepEqual(found.map(({ type }) => type), [
    'session_created', 'action', 'response', 'state_updated', 'goal_added', 'goal_updated', 'agent_spawned',
    'agent_completed', 'session_finalized',
  ]);
  assert.deepEqual(new Set(found.map(({ userId }) => userId)), new Set(['alice']));
  const { metadata, state, actions, final } = await store.get(`/api/sessions/${agent.sessionId}`);
  assert.equal(metadata.status, 'completed');
  assert.equal(state.phase, 'implementation');
  assert.equal(state.goals[0].id, goal.id);
  assert.equal(state.goals[0].status, 'completed');
  const { agentId, status, result } = state.agents.spawned[0];
  assert.deepEqual([agentId, status, result], [worker.agentId, 'completed', 'done']);
  assert.equal(actions[0].lines, 42);
  assert.equal(final.outcome, 'All done');
});

test('a goal and an agent are answered as the store has them, before it has them', async () => {
  const { agent } = newAgent({ serviceUrl: 'http://127.0.0.1:1' });
  const goal = await agent.addGoal({ description: 'Build' });
  assert.deepEqual(
    { ...goal.goal, success: goal.success },
    { id: goal.id, description: 'Build', priority: 'medium', status: 'pending', success: true },
  );
  const worker = await agent.spawnAgent({ type: 'tester' });
  const { agentId, type, task, status, subsession, success } = worker;
  assert.deepEqual({ type, task, status, subsession, success }, {
    type: 'tester', task: null, status: 'spawned', subsession: null, success: true,
  });
  assert.match(agentId, /^agent-/);
  assert.ok(!Number.isNaN(Date.parse(worker.spawnedAt)));
});

test('the first call enters the session with what is known of it, and only the first', async () => {
  const spool = newFolder();
  const env = { SESSION_USER_ID: 'bob', SESSION_PARENT_ID: 'parent-1', SESSION_TAGS: 'one, two' };
  const settings = { ...environment(store, spool), ...env };
  assertQuiet(await run("await logAction({type: 'note'}); await logAction({type: 'note'})", settings));
  const { metadata } = await store.get(`/api/sessions/${settings.SESSION_ID}`);
  assert.deepEqual(
    [metadata.userId, metadata.parentSession, metadata.tags, metadata.resumes],
    ['bob', 'parent-1', ['one', 'two'], 0],
  );
  assertQuiet(await run("await logAction({type: 'note'})", { ...settings, SESSION_USER_ID: '' }));
  const again = await store.get(`/api/sessions/${settings.SESSION_ID}`);
  assert.deepEqual([again.metadata.userId, again.metadata.resumes], ['bob', 1]);
});

test('enter tells how the session begins', async () => {
  const { agent } = newAgent({ initial: { input: 'of the options' }, tags: ['a'] });
  const answer = await agent.enter({ initial: { input: 'Build it' }, metadata: { model: 'm-1' } });
  assert.equal(answer.sessionId, agent.sessionId);
  await agent.flush();
  const { initial, metadata } = await store.get(`/api/sessions/${agent.sessionId}`);
  assert.deepEqual([initial.input, metadata.model, metadata.tags], ['Build it', 'm-1', ['a']]);
});

test('an eventId and a time of the caller are kept, and the event is stored once', async () => {
  const { agent, events } = newAgent();
  const action = { type: 'note', eventId: 'mine-1', timestamp: '2026-02-13T21:59:12+01:00' };
  assert.equal((await agent.logAction(action)).eventId, 'mine-1');
  await agent.logAction(action);
  await agent.flush();
  const [, only, ...more] = await events();
  assert.deepEqual([only.eventId, only.timestamp, more], ['mine-1', '2026-02-13T20:59:12.000Z', []]);
});

test('a state is kept as it is, whatever its members are called', async () => {
  const { agent } = newAgent();
  const members = { eventId: 'x!', timestamp: 'noon', nested: { a: 1 } };
  await agent.updateState(members);
  await agent.updateState({ nested: { b: 2 } });
  await agent.flush();
  const state = await store.get(`/api/state/${agent.sessionId}`);
  assert.deepEqual([state.eventId, state.nested], ['x!', { a: 1, b: 2 }]);
});

test('a session can end in each way, said shortly or at length', async () => {
  const ways = [
    [undefined, 'success', null],
    ['failed', 'failed', null],
    ['All went well', 'success', 'All went well'],
    [{ status: 'cancelled', outcome: { why: 'enough' } }, 'cancelled', { why: 'enough' }],
    [{ status: 'splendid' }, 'failed', null],
  ];
  for (const [given, status, outcome] of ways) {
    const { agent } = newAgent();
    await agent.finalizeSession(given);
    await agent.flush();
    const { final } = await store.get(`/api/sessions/${agent.sessionId}`);
    assert.deepEqual([final.status, final.outcome], [status, outcome]);
  }
});

// ------------------------------------------------------------------------------------------------------ values

test('what JSON cannot hold is stored as what comes nearest', async () => {
  const cycle = { name: 'loop' };
  cycle.self = cycle;
  class Point {
    x = 1;
    get y() {
      throw new Error('never');
    }
  }
  const data = await stored({
    lone: 'a\ud800b', nan: NaN, infinite: -Infinity, small: 7n, beyond: 2n ** 62n, large: 1e300,
    cycle, nothing: undefined, holes: [1, , 3], named: function work() {}, symbol: Symbol('s'), date: new Date(0),
    noDate: new Date(NaN), bytes: Buffer.from([1, 2, 3]), floats: new Float64Array([0.5]), map: new Map([[1, 'one']]),
    set: new Set(['x']), pattern: /x+/, text: new String('boxed'),
    error: Object.assign(new Error('no'), { code: 'E1' }),
    point: new Point(), url: new URL('http://h/'), ['k\udc00']: 1,
    angry: { toJSON() { throw new Error('not me'); } },
    revoked: (({ proxy, revoke }) => (revoke(), proxy))(Proxy.revocable({}, {})),
  });
  const { seq, type, error, revoked, large, ...rest } = data;
  assert.deepEqual(rest, {
    lone: 'a\ufffdb', nan: null, infinite: null, small: 7, beyond: '4611686018427387904',
    cycle: { name: 'loop', self: '[circular]' }, holes: [1, null, 3], named: '[function work]', symbol: 'Symbol(s)',
    date: '1970-01-01T00:00:00.000Z', noDate: null, bytes: 'AQID', floats: [0.5], map: { 1: 'one' }, set: ['x'],
    pattern: '/x+/', text: 'boxed', point: { x: 1 }, url: 'http://h/', 'k\ufffd': 1, angry: '[unreadable: not me]',
  });
  assert.equal(large, 1e300);
  assert.deepEqual([error.name, error.message, error.code], ['Error', 'no', 'E1']);
  assert.match(revoked, /unreadable/);
});

test('a member that is named __proto__ is one', async () => {
  const { agent, spoolDir } = newAgent();
  await agent.updateState(JSON.parse('{"__proto__": {"x": 1}, "y": 2}'));
  await agent.flush();
  const text = await (await fetch(`${store.url}/api/state/${agent.sessionId}`)).text();
  assert.match(text, /"__proto__":\{"x":1\}/);
  assert.deepEqual(deadOf(spoolDir), []);
});

test('nesting is kept as deep as the store takes it, and no deeper', async () => {
  const nested = (depth) => JSON.parse('['.repeat(depth) + ']'.repeat(depth));
  const fits = { deep: nested(62) }; // with the event and its data: 64
  assert.deepEqual((await stored(fits)).deep, fits.deep);
  assert.match(JSON.stringify((await stored({ deep: nested(63) })).deep), /nested too deep/);
  assert.match(JSON.stringify((await stored({ deep: nested(5_000) })).deep), /nested too deep/);

  const line = { sessionId: newSession(), type: 'action', data: { type: 'note', deep: nested(63) } };
  const headers = { 'content-type': 'application/x-ndjson' };
  const answer = await fetch(`${store.url}/api/events`, { method: 'POST', headers, body: JSON.stringify(line) });
  assert.equal((await answer.json()).accepted, 1);
  const [kept] = await (await fetch(`${store.url}/api/actions/${line.sessionId}`)).json();
  assert.ok(kept.truncated, 'the store takes deeper ones whole than we send');
});

test('an event that is too large is cut where it is longest, and says so', async () => {
  const data = await stored({ path: 'a.txt', content: '\ud83d\ude00'.repeat(800_000), small: 'kept' });
  assert.deepEqual([data.path, data.small], ['a.txt', 'kept']);
  assert.ok(data.content.length > 200_000 && data.content.length < 800_000);
  assert.ok(data.truncated.bytes > 3_200_000);
  assert.match(data.truncated.sha256, /^[0-9a-f]{64}$/);

  const many = await stored({ path: 'a.txt', items: Array.from({ length: 400_000 }, () => 12345) });
  assert.equal(many.path, 'a.txt');
  assert.ok(many.truncated.bytes > 2_000_000 && many.text.includes('12345,12345'));

  const whole = await stored({ path: 'a.txt', text: 'many words '.repeat(500_000) }); // beyond what a queue takes
  assert.ok(whole.truncated.bytes > 5_000_000 && whole.text.includes('many words many'));
});

test('a secret is taken out by the store, also of what it cuts', async () => {
  const secret = `sk-ant-${'a1B2'.repeat(10)}`;
  const data = await stored({ short: `key ${secret} here`, long: `${'x'.repeat(600_000)} ${secret} ${'x'.repeat(600_000)}` });
  assert.equal(data.short, 'key [redacted:anthropic] here');
  assert.ok(!JSON.stringify(data).includes('sk-ant'));
});

// ----------------------------------------------------------------------------------------------------- misuse

const ODD = [
  undefined, null, 7, 7n, NaN, '', 'text', true, Symbol('s'), [], [1], {}, () => {}, new Map([['type', 3]]),
  { type: 5 }, { type: null }, { eventId: 'not an id' }, { timestamp: 'noon' }, { timestamp: '2026-02-30T00:00:00Z' },
  { agentId: '..' }, { status: 4 }, { status: null }, { id: 9 }, { description: {} }, { priority: 1 }, { result: 1 },
  { tags: 'a' }, { tags: [1] }, { initial: 3 }, { metadata: [] }, { parentSession: '?' }, { userId: 'a\nb' },
  { exitCode: 'x' },
];
const WITH_AN_ID = ['updateGoal', 'completeAgent'];

test('no call rejects, whatever it is given, and the store takes what becomes of it', async () => {
  for (const call of ['logAction', 'logResponse', 'updateState', 'addGoal', 'updateGoal', 'spawnAgent', 'completeAgent',
    'finalizeSession', 'enter']) {
    const { agent, spoolDir, events } = newAgent();
    for (const odd of ODD) {
      const words = WITH_AN_ID.includes(call) ? [[odd, {}], ['some-id', odd]] : [[odd]];
      for (const given of words) assert.equal((await agent[call](...given)).success, true);
    }
    assert.equal(await agent.flush(), true);
    assert.deepEqual(deadOf(spoolDir), [], call);
    const calls = call === 'enter' ? 0 : ODD.length * (WITH_AN_ID.includes(call) ? 2 : 1);
    assert.equal((await events()).length, calls + 1, call);
  }
});

test('no beginning keeps a session from being created', async () => {
  for (const odd of ODD) {
    const { agent, spoolDir } = newAgent();
    await agent.enter(odd);
    await agent.flush();
    assert.deepEqual(deadOf(spoolDir), []);
  }
});

test('a member that breaks a rule is kept beside the others', async () => {
  const data = await stored({ type: 3, timestamp: 'yesterday', eventId: 'a b', path: 'a' });
  assert.deepEqual([data.type, data.path], ['3', 'a']);
  assert.deepEqual(data.given, { type: 3, timestamp: 'yesterday', eventId: 'a b' });
});

test('settings that the store would refuse are bent until it does not', async () => {
  for (const sessionId of ['../../etc/passwd', 'a b/c', '', null, {}, 'x'.repeat(500), 17, Symbol('s'), '...']) {
    const userId = `\n\u0085a\ud800${'b'.repeat(500)}`;
    const { agent, spoolDir, events } = newAgent({ sessionId, userId, tags: 'none' });
    await agent.logAction({ type: 'note' });
    assert.equal(await agent.flush(), true);
    assert.deepEqual(deadOf(spoolDir), []);
    assert.equal((await events()).length, 2);
  }
});

test('no setting makes a call reject', async () => {
  for (const serviceUrl of ['not a url', 'ftp://h/', 'http://', 'http://[', 'http://127.0.0.1:99999', Symbol('s')]) {
    for (const spoolDir of ['/dev/null/x', '\0', {}]) {
      const agent = new SessionHookAgent({ serviceUrl, spoolDir, token: 'a\nb' });
      assert.equal((await agent.logAction({ type: 'note' })).success, true);
      assert.equal(await agent.resume(), null);
      if (serviceUrl !== agent.serviceUrl) continue; // no text: the default, at which something may be
      assert.equal(await agent.testConnection(), false);
    }
  }
});

// ---------------------------------------------------------------------------------------------------- asking

test('the store can be asked whether it is there, and for what is needed to go on', async () => {
  const { agent } = newAgent();
  assert.equal(await agent.testConnection(), true);
  assert.equal(await agent.resume(), null);
  await agent.logAction({ type: 'note', n: 1 });
  await agent.flush();
  assert.equal((await agent.resume()).lastActions[0].n, 1);
  assert.equal(await agent.close(), true);
  assert.equal(await agent.close(), true);
  await agent.logAction({ type: 'note', n: 2 });
  assert.equal(await agent.flush(), true, 'an agent that was closed can be used again');
});

test('asking a store that is away says so, and a program that only asks ends', async () => {
  const env = { ...environment(store, newFolder()), SESSION_SERVICE_URL: 'http://127.0.0.1:1' };
  const asked = 'await agent.testConnection(), await agent.resume(), await flush(200), await close()';
  const ended = await run(`console.log(${asked})`, env);
  assertQuiet(ended);
  assert.equal(ended.stdout, 'false null true true\n', 'nothing was logged, so nothing waits');
});

// --------------------------------------------------------------------------------------------------- exports

test('every call is there by name and on the default export', () => {
  for (const call of CALLS) {
    assert.equal(typeof named[call], 'function', call);
    assert.equal(named.default[call], named[call]);
    assert.equal(typeof SessionHookAgent.prototype[call], 'function');
  }
  assert.equal(named.default.SessionHookAgent, SessionHookAgent);
});

test('importing does nothing, and the environment is read when it is first used', async () => {
  const spool = join(newFolder(), 'spool');
  const env = environment(store, spool);
  const later = newSession();
  assertQuiet(await run('', env));
  assert.equal(fs.existsSync(spool), false);
  const lines = `process.env.SESSION_ID = '${later}'; await logAction({type: 'note'});`;
  const ended = await run(`${lines} console.log(agent.default.sessionId)`, env);
  assertQuiet(ended);
  assert.equal(ended.stdout.trim(), later);
  assert.equal((await store.events(later)).length, 2);
});

test('a session without a name gets one, and keeps it', async () => {
  const { SESSION_ID: _, ...env } = environment(store, newFolder());
  const ended = await run("await logAction({type: 'note'}); console.log(agent.default.sessionId)", env);
  assertQuiet(ended);
  assert.match(ended.stdout, /^session-\d+-[0-9a-f]{8}\n$/);
  assert.equal((await store.events(ended.stdout.trim())).length, 2);
});

test('what is kept on disk is for its owner alone', async () => {
  const spool = join(newFolder(), 'spool');
  const { agent } = newAgent({ spoolDir: spool, serviceUrl: 'http://127.0.0.1:1' });
  await agent.logAction({ type: 'note' });
  const paths = [spool, ...fs.readdirSync(spool, { recursive: true }).map((name) => join(spool, name))];
  assert.equal(paths.length, 3);
  for (const path of paths) assert.equal(fs.statSync(path).mode & 0o077, 0, path);
});
