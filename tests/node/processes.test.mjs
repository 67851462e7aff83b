// What becomes of what was logged when programs end, are killed, run at once, and follow each other.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'node:test';

import {
  AGENT, Link, Store, assertQuiet, atEnd, begin, environment, eventually, listening, newFolder, newSession, queuesOf,
  run, senderOf, sendersOver, upTo,
} from './surroundings.mjs';

const store = await Store.create();
const AWAY = { url: 'http://127.0.0.1:1' };
const log = (from, to) => `for (let n = ${from}; n < ${to}; n += 1) logAction({ type: 'note', n });`;
const KILLED = "process.kill(process.pid, 'SIGKILL');";

/** That nothing waits in a spool folder, and nobody is there to deliver it. */
const isEmpty = (spool) => queuesOf(spool).length === 0 && senderOf(spool) === null;

// ------------------------------------------------------------------------------------------------------ ending

test('a program that ends right after its last call has delivered everything', async () => {
  const env = environment(store, newFolder());
  assertQuiet(await run(log(0, 700), env));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(700));
  assert.ok(isEmpty(env.SESSION_SPOOL_DIR));
});

test('what is left by process.exit is delivered by a process of its own, which then ends', async () => {
  const env = environment(store, newFolder());
  const { code, stderr } = await run(`${log(0, 700)} process.exit(7)`, env);
  assert.deepEqual([code, stderr], [7, '']);
  await eventually(async () => (await store.numbers(env.SESSION_ID)).length === 700);
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(700));
  await eventually(() => isEmpty(env.SESSION_SPOOL_DIR));
});

test('what a program says in its own exit handler is not lost', async () => {
  const env = environment(store, newFolder());
  const handler = `process.on('exit', () => { ${log(1, 3)} });`;
  const { code } = await run(`${handler} ${log(0, 1)} await flush(); process.exit(1)`, env);
  assert.equal(code, 1);
  await eventually(async () => (await store.numbers(env.SESSION_ID)).length === 3);
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(3));
});

test('a program that dies of an exception dies of it as ever, and what it said arrives', async () => {
  const env = environment(store, newFolder());
  const { code, stderr } = await run(`${log(0, 5)} throw new Error('its own fault')`, env);
  assert.equal(code, 1);
  assert.match(stderr, /its own fault/);
  await eventually(async () => (await store.numbers(env.SESSION_ID)).length === 5);
});

test('SIGTERM does what it does without us', async () => {
  const waiting = `${log(0, 5)} await flush(); console.log('ready'); setInterval(() => {}, 1000);`;
  for (const [lines, expected] of [
    [waiting, { code: null, signal: 'SIGTERM' }],
    [`process.on('SIGTERM', () => process.exit(9)); ${waiting}`, { code: 9, signal: null }],
  ]) {
    const { child, done, said } = begin(lines, environment(store, newFolder()));
    await eventually(() => said.stdout.includes('ready'));
    child.kill('SIGTERM');
    const { code, signal } = await done;
    assert.deepEqual({ code, signal }, expected);
  }
});

test('a store that takes and never answers keeps nobody from ending', async () => {
  const sockets = [];
  const silent = createServer((socket) => sockets.push(socket.on('error', () => {}))).listen(0, '127.0.0.1');
  atEnd('the silent store closes', () => (sockets.forEach((socket) => socket.destroy()), silent.close()));
  await listening(silent);
  const env = environment({ url: `http://127.0.0.1:${silent.address().port}` }, newFolder());
  const soon = ['timeout', '15']; // the sender would wait 30 s for its answer
  assertQuiet(await run(`${log(0, 100)} await close();`, env, soon));
  await eventually(() => senderOf(env.SESSION_SPOOL_DIR));
  assertQuiet(await run(log(100, 101), { ...env, SESSION_SERVICE_URL: store.url }));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(101));
});

test('many programs that end while the store is away leave one process behind', async () => {
  const later = await Store.create({}, { isUp: false });
  const spool = newFolder();
  const sessions = upTo(5).map(newSession);
  for (const sessionId of sessions) assertQuiet(await run(log(0, 10), environment(later, spool, sessionId)));
  const sender = await eventually(() => senderOf(spool));
  await eventually(() => sendersOver(spool).length === 1); // one that came too late leaves once it has seen the first
  await later.start();
  for (const sessionId of sessions) {
    await eventually(async () => (await later.numbers(sessionId)).length === 10);
    assert.deepEqual(await later.numbers(sessionId), upTo(10));
  }
  await eventually(() => isEmpty(spool));
  await eventually(() => !fs.existsSync(`/proc/${sender}`));
});

test('a file of another name starts no process of its own', async () => {
  const bundle = join(newFolder(), 'bundle.mjs'); // as a bundler would make it: the agent and what uses it in one
  const env = environment(AWAY, newFolder());
  fs.writeFileSync(bundle, `${fs.readFileSync(AGENT, 'utf8')}\nawait logAction({ type: 'note', n: 0 });`);
  assertQuiet(await run(`await import(${JSON.stringify(bundle)})`, env));
  assertQuiet(await run(`process.argv[1] = ${JSON.stringify(bundle)}; await import(${JSON.stringify(bundle)})`, env));
  assert.deepEqual(sendersOver(env.SESSION_SPOOL_DIR), []);
  assertQuiet(await run(log(1, 2), environment(store, env.SESSION_SPOOL_DIR, env.SESSION_ID)));
  assert.deepEqual(await store.numbers(env.SESSION_ID), [0, 0, 1]);
});

// ------------------------------------------------------------------------------------------------------- kills

test('what a call was resolved for outlives kill -9, with the store there or away', async () => {
  for (const target of [store, AWAY]) {
    for (const after of [1, 400, 3_000]) {
      const env = environment(target, newFolder());
      const program = begin(
        `for (let n = 0; ; n += 1) {
          await logAction({ type: 'note', n });
          require('node:fs').writeSync(1, n + '\\n');
          if (n % 50 === 0) await new Promise(setImmediate);
        }`.replace('require', "(await import('node:module')).createRequire('/')"),
        env,
      );
      await eventually(() => program.said.stdout.split('\n').length > after);
      program.child.kill('SIGKILL');
      const { stdout } = await program.done;
      const said = stdout.trim().split('\n').length;
      assertQuiet(await run('logAction({ type: "after" }); await flush()', { ...env, SESSION_SERVICE_URL: store.url }));
      const numbers = await store.numbers(env.SESSION_ID);
      assert.deepEqual(numbers, upTo(numbers.length));
      assert.ok(numbers.length >= said, `${said} were resolved, ${numbers.length} are stored`);
      assert.ok(isEmpty(env.SESSION_SPOOL_DIR));
    }
  }
});

test('what several have left comes before what the next one says, in the order of their starts', async () => {
  const spool = newFolder();
  const env = environment(AWAY, spool);
  for (const n of upTo(4)) await run(`${log(n * 10, n * 10 + 10)} ${KILLED}`, env);
  assert.equal(queuesOf(spool).length, 4);
  assertQuiet(await run(log(40, 50), environment(store, spool, env.SESSION_ID)));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(50));
});

test('what waits with a process that only delivers comes before what the next program says', async () => {
  const link = await Link.create(store);
  link.nextFault = () => 'drop';
  const env = environment(link, newFolder());
  assertQuiet(await run(log(0, 10), env));
  await eventually(() => queuesOf(env.SESSION_SPOOL_DIR).some((name) => name.includes('.send-')));
  assertQuiet(await run(log(10, 20), { ...env, SESSION_SERVICE_URL: store.url }));
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(20));
});

test('what a container has left is taken over by the next one, though its process ids are in use', async () => {
  const spool = newFolder();
  const env = environment(AWAY, spool);
  for (const [n, owner] of [`${process.pid}-1-00000000`, `${process.pid}-1-`, `1-0-00000000`].entries()) {
    await run(`${log(n, n + 1)} ${KILLED}`, env);
    const [name] = queuesOf(spool);
    const [family, place] = [name.split('.')[0], name.split('-').at(-1)];
    fs.renameSync(join(spool, name), join(spool, `${family}.${owner.endsWith('-') ? owner + place : owner}`));
    assertQuiet(await run('logAction({ type: "after" })', { ...env, SESSION_SERVICE_URL: store.url }));
    assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(n + 1));
  }
});

test('a queue whose program is running is left to it', async () => {
  const spool = newFolder();
  const env = environment(AWAY, spool);
  const running = begin(`${log(0, 1)} console.log('ready'); setInterval(() => {}, 1000);`, env);
  await eventually(() => running.said.stdout);
  assertQuiet(await run('logAction({ type: "other" })', environment(store, spool)));
  assert.equal(queuesOf(spool).length, 1);
  assert.deepEqual(await store.numbers(env.SESSION_ID), []);
  running.child.kill('SIGKILL');
  await running.done;
});

// ------------------------------------------------------------------------------------------------------ at once

test('programs that run at once do not disturb each other', async () => {
  const spool = newFolder();
  const sessionId = newSession();
  const link = await Link.create(store);
  link.faults = ['drop', 'resetAfterCommit', 'pass', '500', 'pass', 'halfAnAnswer'];
  const program = (who) => `for (let n = 0; n < 500; n += 1) {
    await logAction({ type: 'note', who: ${who}, n });
    if (n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await flush();`;
  const ended = await Promise.all(upTo(4).map((who) => run(program(who), environment(link, spool, sessionId))));
  ended.forEach(assertQuiet);
  const notes = (await store.events(sessionId)).filter(({ data }) => data.type === 'note').map(({ data }) => data);
  for (const who of upTo(4)) assert.deepEqual(notes.filter((note) => note.who === who).map(({ n }) => n), upTo(500));
  assert.ok(isEmpty(spool));
});

test('programs that find the same remains at once deliver them once, in order', async () => {
  const spool = newFolder();
  const env = environment(AWAY, spool);
  await run(`${log(0, 2_000)} ${KILLED}`, env);
  await Promise.all(upTo(4).map(() => run('logAction({ type: "other" }); await flush()', environment(store, spool))));
  await eventually(async () => (await store.numbers(env.SESSION_ID)).length >= 2_000);
  assert.deepEqual(await store.numbers(env.SESSION_ID), upTo(2_000));
});

test('a program whose queue is taken or removed while it runs loses nothing that it says from then on', async () => {
  const spool = newFolder();
  const env = environment(AWAY, spool);
  const running = begin(
    `import { createInterface } from 'node:readline';
    let n = 0;
    const say = () => { for (const end = n + 5; n < end; n += 1) logAction({ type: 'note', n }); console.log(n); };
    say();
    const next = setInterval(() => { if (process.ppid && n < 30) say(); else clearInterval(next); }, 400);`,
    env,
  );
  await eventually(() => running.said.stdout.includes('10\n'));
  const [mine] = queuesOf(spool);
  fs.renameSync(join(spool, mine), join(spool, `${mine.split('.')[0]}.free`)); // as one does that cannot see it
  await eventually(() => running.said.stdout.includes('20\n'));
  const taken = queuesOf(spool);
  assert.equal(taken.length, 2);
  fs.cpSync(join(spool, taken[1]), join(spool, taken[1].replace(/\.\d.*/, '.free')), { recursive: true });
  fs.rmSync(join(spool, taken[1]), { recursive: true });
  assertQuiet(await running.done);
  assertQuiet(await run('logAction({ type: "after" })', environment(store, spool, env.SESSION_ID)));
  const numbers = await store.numbers(env.SESSION_ID);
  assert.deepEqual(new Set(numbers), new Set(upTo(30)));
});

test('threads of one program each have their own queue, and nothing of them is lost', async () => {
  const env = environment(store, newFolder());
  const thread = `import(${JSON.stringify(AGENT)}).then(async ({ logAction, flush }) => {
    for (let n = 0; n < 200; n += 1) await logAction({ type: 'note', n });
    if (process.env.WAITS) await flush();
  });`;
  for (const [round, waits] of [true, false].entries()) {
    assertQuiet(await run(
      `import { Worker } from 'node:worker_threads';
      await new Promise((resolve) => new Worker(${JSON.stringify(thread)}, { eval: true }).on('exit', resolve));
      logAction({ type: 'note', n: 200 + ${round} });`,
      { ...env, WAITS: waits ? '1' : '' },
    ));
    await eventually(async () => (await store.numbers(env.SESSION_ID)).length === (round + 1) * 201);
  }
  await eventually(() => isEmpty(env.SESSION_SPOOL_DIR));
});
