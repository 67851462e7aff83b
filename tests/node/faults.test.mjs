// What the Node agent does while the link, the store, the token or the disk is not as it should be.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import { SessionHookAgent } from '../../containers/hook_agent.mjs';
import {
  FAULT_NAMES, Link, Store, assertQuiet, begin, deadOf, environment, eventually, newFolder, newSession,
  queuesOf, refuses, run, says, upTo,
} from './surroundings.mjs';

const store = await Store.create();

/** A program that logs 0, 1, 2, … without waiting, and then waits until all of it is delivered. */
const logging = (count, members = '') => `
  for (let n = 0; n < ${count}; n += 1) {
    await logAction({ type: 'note', n, ${members} });
    if (n % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  if (!(await flush(20_000))) console.error('not all was delivered');
`;

test('over a bad link everything arrives, nothing twice, and in order', async () => {
  const link = await Link.create(store);
  link.faults = [...FAULT_NAMES, ...FAULT_NAMES].flatMap((name) => [name, 'pass']);
  const env = environment(link, newFolder());
  const more = "for (let i = 0; i < 12; i += 1) { await logAction({ type: 'more' }); await flush(300); }";
  for (const round of [0, 1]) {
    assertQuiet(await run(`${logging(600)} ${more}`, env));
    assert.deepEqual(await store.numbers(env.SESSION_ID), [...upTo(600), ...(round ? upTo(600) : [])]);
  }
  const events = await store.events(env.SESSION_ID);
  assert.equal(new Set(events.map(({ eventId }) => eventId)).size, events.length);
  assert.equal(events.length, 2 * (1 + 600 + 12));
  assert.ok(link.batches.length > 20, 'the link has had its chances');
});

test('what is logged at the moment in which all is delivered is delivered, too', async () => {
  const env = environment(store, newFolder());
  const last = `${store.url}/api/actions/${env.SESSION_ID}?order=desc&limit=1`;
  const lines = `const isStored = async (n) => (await (await fetch('${last}')).json())[0].n === n;
    for (let n = 0; n < 40; n += 2) {
      await logAction({ type: 'note', n });
      await flush();
      await logAction({ type: 'note', n: n + 1 });
      while (!(await isStored(n + 1))) await new Promise((resolve) => setTimeout(resolve, 2));
    }`;
  assertQuiet(await run(lines, env, ['timeout', '20']));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(40));
});

for (const fault of FAULT_NAMES.filter((name) => !['pass', 'delay'].includes(name))) {
  test(`what meets "${fault}" is sent again until it is acknowledged`, async () => {
    const link = await Link.create(store);
    link.faults = [fault, fault];
    const spool = newFolder();
    const env = environment(link, spool);
    assertQuiet(await run(logging(30), env));
    assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(30));
    assert.ok(link.batches.length >= 3);
    assert.deepEqual([queuesOf(spool), deadOf(spool)], [[], []], 'what is acknowledged is removed');
  });
}

test('what is logged while the store is down arrives when it is up', async () => {
  const later = await Store.create({}, { isUp: false });
  const env = environment(later, newFolder());
  const program = begin(`${logging(200)} console.log('delivered')`, env);
  await eventually(() => queuesOf(env.SESSION_SPOOL_DIR).length);
  await later.start();
  assertQuiet(await program.done);
  assert.deepEqual(await later.numbers(env.SESSION_ID), upTo(200));
});

test('a store that says when to come again is not asked before', async () => {
  const link = await Link.create(store);
  const inTwoSeconds = () => new Date(Date.now() + 2_000).toUTCString(); // whole seconds: in more than one, at least
  const busy = (response) => says(429, { 'retry-after': inTwoSeconds() })(response);
  link.faults = [says(503, { 'retry-after': '1' }), busy];
  const env = environment(link, newFolder());
  assertQuiet(await run(`logAction({type: 'note'}); await flush(1); ${logging(5)}`, env));
  const [first, second, third] = link.batches.map(({ at }) => at);
  assert.ok(second - first >= 1_000, `${second - first} ms`);
  assert.ok(third - second >= 900, `${third - second} ms`);
});

test('a refused token is said once, everything is kept, and a new token is taken up', async () => {
  const tokens = { SESSIONS_TOKEN: 'admin-token-0123456789', SESSIONS_INGEST_TOKEN: 'ingest-token-0123456789' };
  const guarded = await Store.create(tokens);
  const folder = newFolder();
  const tokenFile = join(folder, 'token');
  fs.writeFileSync(tokenFile, 'a-wrong-token\n');
  const link = await Link.create(guarded);
  const env = { ...environment(link, join(folder, 'spool')), SESSION_TOKEN_FILE: tokenFile };
  const program = begin(logging(50), env);
  await eventually(() => program.said.stderr);
  fs.writeFileSync(tokenFile, 'another-wrong-token\n');
  await eventually(() => link.batches.length > 1);
  fs.writeFileSync(tokenFile, 'ingest-token-0123456789\n');
  const { code, stderr } = await program.done;
  assert.equal(code, 0);
  assert.match(stderr, /^hook_agent: the session store at \S+ refused the token \(401: .*\)\. .*\n$/);
  assert.doesNotMatch(stderr, /wrong-token/);
  assert.deepEqual(await guarded.numbers(env.SESSION_ID), upTo(50));
  assert.deepEqual(deadOf(env.SESSION_SPOOL_DIR), []);
});

test('a token file that cannot be read is named, once', async () => {
  const guarded = await Store.create({ SESSIONS_TOKEN: 'the-right-token-0123456789' });
  const folder = newFolder();
  for (const [name, make] of [
    ['not-there', () => {}],
    ['folder', (path) => fs.mkdirSync(path)], // as an engine makes one where there is nothing to mount
    ['empty', (path) => fs.writeFileSync(path, '')],
  ]) {
    const path = join(folder, name);
    make(path);
    const env = { ...environment(guarded, newFolder()), SESSION_TOKEN_FILE: path };
    const { code, stderr } = await run("logAction({type: 'note'})", env);
    assert.equal(code, 0);
    assert.match(stderr, /refused the token .*uid \d+ reads none in /);
    assert.equal(stderr.split(path).length, 2, stderr);
  }
});

test('a program that must not wait for its token ends at once, and its events are kept', async () => {
  const guarded = await Store.create({ SESSIONS_TOKEN: 'the-right-token-0123456789' });
  const env = environment(guarded, newFolder());
  const { code, stderr } = await run("logAction({type: 'note', n: 0})", { ...env, SESSION_TOKEN: 'wrong' });
  assert.equal(code, 0);
  assert.match(stderr, /refused the token/);
  assertQuiet(await run(logging(0), { ...env, SESSION_TOKEN: guarded.token }));
  assertQuiet(await run("logAction({type: 'note', n: 1}); await flush()", { ...env, SESSION_TOKEN: guarded.token }));
  assert.deepEqual(await guarded.numbers(env.SESSION_ID), [0, 1]);
});

// ------------------------------------------------------------------------------------------------------ poison

test('an event that the store refuses is put aside with the reason, and holds nothing up', async () => {
  const spool = newFolder();
  const env = environment(store, spool);
  const taken = "for (const n of [-1, -2]) await logAction({ type: 'taken', eventId: 'taken', n });";
  assertQuiet(await run(`${taken} ${logging(30)}`, env));
  assert.deepEqual(await store.numbers(env.SESSION_ID), [-1, ...upTo(30)]);
  const [{ status, reason, event }, ...more] = deadOf(spool);
  assert.deepEqual([status, event.type, event.data], [422, 'action', { type: 'taken', n: -2 }]);
  assert.deepEqual(more, []);
  assert.match(reason, /other content/);
});

for (const status of [400, 413, 422]) {
  test(`of a batch that is ${status} as a whole, only the bad event is put aside`, async () => {
    const link = await Link.create(store);
    link.nextFault = (body) => (body.includes('poison') ? refuses(status) : 'pass');
    const spool = newFolder();
    const agent = new SessionHookAgent({ serviceUrl: link.url, spoolDir: spool, sessionId: newSession() });
    const bad = [3, 40, 41];
    for (const n of upTo(60)) await agent.logAction({ type: 'note', n, is: bad.includes(n) ? 'poison' : 'good' });
    assert.equal(await agent.flush(), true);
    assert.deepEqual(await store.numbers(agent.sessionId), upTo(60).filter((n) => !bad.includes(n)));
    assert.deepEqual(deadOf(spool).map(({ event }) => event.data.n), bad);
  });
}

const HTML = '<html><title>400</title><center>nginx</center></html>';
const PROBLEM = { 'content-type': 'application/problem+json' };
const NOT_THE_STORES = {
  "nginx's": (status) => says(status, { 'content-type': 'text/html' }, HTML),
  'HTML by another name': (status) => says(status, PROBLEM, HTML),
  "some other service's": (status) => says(status, { 'content-type': 'application/json' }, `{"status":${status}}`),
  "another status's": (status) => says(status, PROBLEM, '{"status":418,"detail":"I am a teapot"}'),
};
for (const [whose, fault] of Object.entries(NOT_THE_STORES)) {
  test(`a refusal that is ${whose} is not the store's: everything is kept`, async () => {
    const link = await Link.create(store);
    const spool = newFolder();
    const env = environment(link, spool);
    const agent = new SessionHookAgent({ serviceUrl: link.url, spoolDir: spool, sessionId: env.SESSION_ID });
    for (const status of [400, 413, 422]) {
      link.nextFault = () => fault(status);
      await agent.logAction({ type: 'note', n: status });
      assert.equal(await agent.flush(300), false);
    }
    link.nextFault = () => 'pass';
    assert.equal(await agent.flush(), true);
    assert.deepEqual(await store.numbers(agent.sessionId), [400, 413, 422]);
    assert.deepEqual(deadOf(spool), []);
  });
}

const told = (accepted, rejected, more = {}) =>
  says(200, {}, JSON.stringify({ success: true, accepted, duplicates: 0, rejected, ...more }));
const BAD = { status: 422, detail: 'bad' };
const DOES_NOT_ADD_UP = [
  told(0, []), told(1, []), told(1, [{ line: 3, ...BAD }]), told(1, [{ line: 2 }]), told(1, [null]),
  told(1, [{ line: 2, ...BAD }], { rejectedTotal: 2 }), told('2', []), told(3, [], { rejectedTotal: -1 }),
];
test('a 200 that does not add up, and a line that cannot be taken now, forget nothing', async () => {
  const link = await Link.create(store);
  const later = [429, 503, 500].map((status) => told(1, [{ line: 2, status, detail: 'later' }]));
  const spool = newFolder();
  const agent = new SessionHookAgent({ serviceUrl: link.url, spoolDir: spool, sessionId: newSession() });
  for (const fault of [...DOES_NOT_ADD_UP, ...later]) {
    link.faults = [fault];
    const before = link.batches.length;
    await Promise.all([agent.logAction({ type: 'note', n: before }), agent.logAction({ type: 'note', n: before + 0.5 })]);
    assert.equal(await agent.flush(), true);
    assert.ok(link.batches.length >= before + 2, 'it was sent again');
  }
  assert.equal((await store.numbers(agent.sessionId)).length, 2 * (DOES_NOT_ADD_UP.length + later.length));
  assert.deepEqual(deadOf(spool), []);
});

test('what is put aside has a bound', async () => {
  const link = await Link.create(store);
  link.nextFault = () => refuses(422);
  const spool = newFolder();
  const agent = new SessionHookAgent({ serviceUrl: link.url, spoolDir: spool, sessionId: newSession() });
  for (const n of upTo(24)) await agent.logAction({ type: 'note', n, text: 'x'.repeat(600_000) });
  assert.equal(await agent.flush(), true);
  const files = fs.readdirSync(join(spool, 'dead'));
  assert.deepEqual(files.sort(), ['node-older.ndjson', 'node.ndjson']);
  const bytes = files.reduce((sum, name) => sum + fs.statSync(join(spool, 'dead', name)).size, 0);
  assert.ok(bytes < 10 << 20, `${bytes} bytes`);
  assert.equal(deadOf(spool).at(-1).event.data.n, 23);
});

// ------------------------------------------------------------------------------------------------------- spool

/** A program that logs so much to a store that is away, and is killed then: what it leaves. */
async function leave(spool, sessionId, count, members) {
  const env = { ...environment({ url: 'http://127.0.0.1:1' }, spool, sessionId) };
  const lines = `for (let n = 0; n < ${count}; n += 1) await logAction({ type: 'note', n, ${members} });`;
  await run(`${lines} process.kill(process.pid, 'SIGKILL');`, env);
}

const pathsIn = (folder) => fs.readdirSync(folder).map((name) => join(folder, name));

test('at the bound the oldest go, and the store is told how many', async () => {
  const later = await Store.create({}, { isUp: false });
  const spool = newFolder();
  const env = { ...environment(later, spool), SESSION_SPOOL_BYTES: '200000' };
  const count = 3_000; // of some 400 bytes each: six times the bound
  const program = begin(logging(count, "text: 'x'.repeat(200)").replace('20_000', '60_000'), env);
  const segments = () => queuesOf(spool).flatMap((queue) => pathsIn(join(spool, queue)));
  await eventually(() => segments().some((path) => path.endsWith('00000040.ndjson')));
  const sizes = segments().map((path) => fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0); // some go meanwhile
  assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= 200_000);
  await later.start();
  assertQuiet(await program.done);

  const events = await later.events(env.SESSION_ID);
  const kept = await later.numbers(env.SESSION_ID);
  const reports = events.filter(({ data }) => data.type === 'events_dropped');
  const dropped = reports.reduce((sum, { data }) => sum + data.count, 0);
  assert.ok(kept.length > 100 && dropped > 1_000, `${kept.length} kept, ${dropped} dropped`);
  assert.equal(kept.length + dropped, count + 1, 'together with the session_created, each is here or accounted for');
  assert.deepEqual(kept, upTo(count).slice(-kept.length), 'it is the oldest that went');
});

test('what a dead program has left counts towards the bound, and only as far as it was not delivered', async () => {
  const spool = newFolder();
  const [old, fresh] = [newSession(), newSession()];
  await leave(spool, old, 400, "text: 'x'.repeat(400)");
  const queue = join(spool, queuesOf(spool)[0]);
  const lines = fs.readFileSync(join(queue, '00000001.ndjson'), 'utf8').split('\n');
  const offset = lines.slice(0, 101).join('\n').length + 1; // the session_created and a hundred of its actions
  fs.writeFileSync(join(queue, 'position.json'), JSON.stringify({ segment: '00000001.ndjson', offset }));
  const env = { ...environment({ url: 'http://127.0.0.1:1' }, spool, fresh), SESSION_SPOOL_BYTES: '100000' };
  await run("logAction({type: 'note'}); process.kill(process.pid, 'SIGKILL')", env);
  assertQuiet(await run(logging(1), environment(store, spool, fresh)));
  const told = (await store.events(fresh)).map(({ data }) => data).filter(({ type }) => type === 'events_dropped');
  assert.deepEqual(told.map(({ count }) => count), [300]);
  assert.deepEqual(await store.events(old), []);
});

test('a torn line is put aside, and everything around it arrives', async () => {
  const spool = newFolder();
  const sessionId = newSession();
  await leave(spool, sessionId, 10, '');
  const [queue] = queuesOf(spool);
  const torn = '{"sessionId":"some","eventId":"torn-1","typ';
  fs.appendFileSync(join(spool, queue, '00000001.ndjson'), torn);
  assertQuiet(await run(logging(10), environment(store, spool, sessionId)));
  assert.deepEqual(await store.numbers(sessionId), [...upTo(10), ...upTo(10)]);
  assert.deepEqual(deadOf(spool).map(({ status, event }) => [status, event]), [[400, torn]]);
  assert.deepEqual(queuesOf(spool), []);
});

test('a position that cannot be read only means sending again', async () => {
  for (const position of ['', 'null', '{"segment": 7, "offset": 3}', '{"segment": "x", "offset": 0}', '[]', '\0\0']) {
    const [spool, sessionId] = [newFolder(), newSession()];
    await leave(spool, sessionId, 10, '');
    fs.writeFileSync(join(spool, queuesOf(spool)[0], 'position.json'), position);
    assertQuiet(await run("logAction({type: 'note'})", environment(store, spool)));
    assert.deepEqual(await store.numbers(sessionId), upTo(10), position);
  }
});

test('what cannot be read is neither removed nor in the way', async () => {
  const [spool, sessionId] = [newFolder(), newSession()];
  await leave(spool, sessionId, 10, '');
  const path = () => join(spool, queuesOf(spool)[0], '00000001.ndjson');
  fs.renameSync(path(), join(spool, 'elsewhere'));
  fs.symlinkSync(join(spool, 'elsewhere'), path()); // no link is followed in a spool
  const env = environment(store, spool);
  assertQuiet(await run(logging(10), env));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(10));
  fs.renameSync(join(spool, 'elsewhere'), path());
  assertQuiet(await run(logging(10), env));
  assert.deepEqual(await store.numbers(sessionId), upTo(10));
});

test('where nothing can be kept on disk, that is said once, and the program goes on', async () => {
  const file = join(newFolder(), 'file');
  fs.writeFileSync(file, '');
  for (const place of [file, '/proc']) { // there is no folder, and one in which none can be made
    const env = { ...environment(store, join(place, 'spool')), TMPDIR: join(place, 'tmp') };
    const { code, stderr, stdout } = await run(`${logging(30)} console.log((await logAction({})).success)`, env);
    assert.deepEqual([code, stdout], [0, 'false\n']);
    assert.match(stderr, /^hook_agent: what is logged cannot be kept in any folder: .*\n$/);
  }
});

test('what the disk does not take is counted, and reported when it does again', async () => {
  const file = join(newFolder(), 'file');
  fs.writeFileSync(file, '');
  const env = { ...environment(store, join(file, 'spool')), TMPDIR: join(file, 'tmp') };
  const lines = `import { rmSync } from 'node:fs'; ${logging(9)} rmSync(${JSON.stringify(file)}); ${logging(3)}`;
  const { code, stderr } = await run(lines, env);
  assert.deepEqual([code, stderr.split('\n').length], [0, 2]);
  const [, ...kept] = (await store.events(env.SESSION_ID)).map(({ data }) => [data.type, data.n ?? data.count]);
  assert.deepEqual(kept, [['note', 0], ['events_dropped', 10], ['note', 1], ['note', 2]], 'with the session_created');
});

test('while the disk takes no more of one file, the store still gets everything, in order', async () => {
  const link = await Link.create(store);
  link.faults = ['drop', 'drop'];
  const env = environment(link, newFolder());
  const limited = ['bash', '-c', "trap '' XFSZ; ulimit -f 64; exec \"$@\"", 'bash']; // files of at most 64 KiB
  assertQuiet(await run(logging(400, "text: 'x'.repeat(500)"), env, limited));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(400));
  assert.deepEqual(deadOf(env.SESSION_SPOOL_DIR), [], 'no half line is left where the disk was full');
});

// ------------------------------------------------------------------------------------------ the version before

/** What the agent before this one left, killed: two events acknowledged, and what it had moved aside and lost. */
const LEFT = {
  '00000001.ndjson': [
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-1","timestamp":"2026-11-29T10:00:00.000Z","type":"session_created","data":{"initial":{"input":"go"},"tags":["one"]}}',
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-2","timestamp":"2026-11-29T10:00:00.001Z","type":"action","data":{"type":"note","n":0}}',
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-3","timestamp":"2026-11-29T10:00:00.002Z","type":"action","data":{"type":"note","n":1}}',
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-4","timestamp":"2026-11-29T10:00:00.003Z","type":"action","data":{"n":2,"invalid":{"type":7},"type":"invalid"}}',
  ],
  '00000002.ndjson': [
    '{"sessionId":"SESSION","userId":"alice","eventId":"dropped-0123456789abcdef0123456789abcdef","timestamp":"2026-11-29T10:00:01.000Z","type":"action","data":{"type":"events_dropped","count":3,"from":"2026-11-29T10:00:00.500Z","to":"2026-11-29T10:00:01.000Z"}}',
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-9","timestamp":"2026-11-29T10:00:02.000Z","type":"action","data":{"type":"note","n":3,"text":"[redacted:anthropic]","large":4611686018427387904}}',
    '{"sessionId":"SESSION","userId":"alice","eventId":"0a-a","timestamp":"2026-11-29T10:00:03.000Z","type":"session_finalized","data":{"status":"success","invalid":{"exitCode":"x"}}}',
  ],
};

test('what the version before has left is delivered', async () => {
  for (const owner of ['free', '1-0-00000000', 'send-4242-17-0badcafe']) {
    const [spool, sessionId] = [newFolder(), newSession()];
    const queue = join(spool, `node-1764410400000-0a1b2c3d.${owner}`);
    fs.mkdirSync(join(spool, 'dead'), { recursive: true });
    fs.mkdirSync(queue);
    const texts = Object.entries(LEFT).map(([name, lines]) => [name, `${lines.join('\n')}\n`.replaceAll('SESSION', sessionId)]);
    for (const [name, text] of texts) fs.writeFileSync(join(queue, name), text);
    const offset = texts[0][1].split('\n').slice(0, 2).join('\n').length + 1;
    fs.writeFileSync(join(queue, 'position.json'), JSON.stringify({ segment: '00000001.ndjson', offset }));
    fs.writeFileSync(join(spool, 'node-trouble'), 'connect ECONNREFUSED 127.0.0.1:9000');
    fs.writeFileSync(join(spool, 'node-sender.lock'), '4242-17-0badcafe');
    const letter = '{"at":"2026-11-29T09:00:00.000Z","status":422,"reason":"bad","event":{"type":"x"}}\n';
    fs.writeFileSync(join(spool, 'dead', 'node.ndjson'), letter);
    assertQuiet(await run("logAction({ type: 'after' })", environment(store, spool)));
    assert.deepEqual(await store.numbers(sessionId), [1, 2, 3]);
    const ids = (await store.events(sessionId)).map(({ eventId }) => eventId);
    assert.deepEqual(ids.slice(-5), ['0a-3', '0a-4', 'dropped-0123456789abcdef0123456789abcdef', '0a-9', '0a-a']);
    assert.deepEqual([queuesOf(spool), deadOf(spool).length], [[], 1]);
  }
});
