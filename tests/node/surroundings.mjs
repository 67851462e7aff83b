// What the tests of the Node agent share: a real store, a link to it that fails on demand, and programs that log.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import http from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
export const AGENT = join(REPOSITORY, 'containers', 'hook_agent.mjs');
const WITHIN_MS = 20_000;
const PROGRAM_MS = 60_000; // the longest of them takes ten seconds on a machine that is not busy
const POLL_MS = 20;

const root = fs.mkdtempSync(join(tmpdir(), 'node-agent-'));

// Nothing of the environment of the caller reaches what is tested, and nothing that is tested leaves this folder.
for (const name of Object.keys(process.env)) if (name.startsWith('SESSION')) delete process.env[name];
Object.assign(process.env, { TMPDIR: root, XDG_STATE_HOME: join(root, 'state') });
const { NODE_TEST_CONTEXT: _, ...OUTSIDE } = process.env;

let number = 0;
export const newSession = () => `test-${process.pid}-${(number += 1)}`;

/** Wait until `condition` gives something true, and return that; that it does not in time is the failure. */
export async function eventually(condition, what = String(condition)) {
  for (const deadline = Date.now() + WITHIN_MS; ; await pause(POLL_MS)) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < deadline, `it did not come to be in time: ${what}`);
  }
}

/** The same as `promise`, but a failure that says what was waited for if it has not come in time. */
async function within(promise, what, milliseconds = WITHIN_MS) {
  const over = new AbortController();
  const late = pause(milliseconds, null, { signal: over.signal }).then(() => {
    throw new Error(`it did not come within ${milliseconds / 1_000} s: ${what()}`);
  });
  return Promise.race([promise, late]).finally(() => (late.catch(() => {}), over.abort()));
}

export function listening(server) {
  return within(new Promise((resolve) => server.once('listening', resolve)), () => 'a server of the tests listens');
}

// ------------------------------------------------------------------------------------------------- afterwards

// One hook for all of it: Node runs no further one after a hook that fails, and waits for ever for what is then left.
const endings = [];
export const atEnd = (what, end) => endings.unshift([what, end]); // last begun, first ended: links before their stores
const STUCK_MS = 5_000;

atEnd('the folder is removed', () => fs.rmSync(root, { recursive: true, force: true, maxRetries: 10 }));
atEnd('the senders end', () => sendersOver(root).forEach((pid) => kill(Number(pid))));

after(async () => {
  const failures = [];
  for (const [what, end] of endings) await Promise.resolve().then(end).catch((error) => failures.push({ what, error }));
  setTimeout(stuck, STUCK_MS).unref();
  assert.deepEqual(failures, []);
});

/** What is left keeps this process running, and whoever started it waiting. */
function stuck() {
  console.error(`the tests are over, but something is left: ${process.getActiveResourcesInfo().join(', ')}`);
  process.exit(1);
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // it has ended since
  }
}

// ---------------------------------------------------------------------------------------------------- folders

export function newFolder() {
  return fs.mkdtempSync(join(root, 'folder-'));
}

/** The process that delivers what programs have left in a spool folder, or null. */
export function senderOf(spool) {
  try {
    return Number.parseInt(fs.readFileSync(join(spool, 'node-sender.lock'), 'utf8'), 10);
  } catch {
    return null;
  }
}

/** The processes, by id, that deliver from a spool folder, or from one below it. */
export function sendersOver(spool) {
  return fs.readdirSync('/proc').filter((pid) => {
    try {
      const isSender = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith('hook_agent.mjs\0flush\0');
      return isSender && fs.readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`SESSION_SPOOL_DIR=${spool}`);
    } catch {
      return false; // it has ended since, or is none of ours
    }
  });
}

export const queuesOf = (spool) => fs.readdirSync(spool).filter((name) => /^node-\d/.test(name)).sort();

export function deadOf(spool) {
  const path = join(spool, 'dead', 'node.ndjson');
  return fs.existsSync(path) ? fs.readFileSync(path, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) : [];
}

// ------------------------------------------------------------------------------------------------------ store

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await listening(server);
  const { port } = server.address();
  await within(new Promise((resolve) => server.close(resolve)), () => 'a port is free again');
  return port;
}

/** `fetch` with a bound, whose failure names what was asked. */
async function get(url, options = {}) {
  try {
    return await fetch(url, { ...options, signal: AbortSignal.timeout(WITHIN_MS) });
  } catch (cause) {
    throw new Error(`no answer from ${url}`, { cause });
  }
}

function python() {
  const own = join(REPOSITORY, '.venv', 'bin', 'python');
  return process.env.PYTHON || (fs.existsSync(own) ? own : 'python3');
}

/** The session store in a process of its own, over a folder of its own. */
export class Store {
  #env;
  #child = null;
  #output = '';

  static async create(env = {}, { isUp = true } = {}) {
    const store = new Store();
    store.port = await freePort();
    store.token = env.SESSIONS_TOKEN;
    store.url = `http://127.0.0.1:${store.port}`;
    store.#env = { ...OUTSIDE, SESSIONS_DIR: newFolder(), PORT: String(store.port), ...env };
    atEnd(`the store at ${store.url} ends`, () => store.stop());
    if (isUp) await store.start();
    return store;
  }

  async start() {
    this.#child = spawn(python(), ['app.py'], { cwd: REPOSITORY, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.on('data', (text) => (this.#output += text));
    await eventually(async () => {
      assert.equal(this.#child.exitCode, null, `the store has ended: ${this.#output}`);
      return (await get(`${this.url}/health`).catch(() => null))?.ok;
    }, `the store at ${this.url} is up`);
  }

  async stop() {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const what = () => `the store at ${this.url} ends; it said: ${this.#output}`;
    await within(gone, what).finally(() => child.kill('SIGKILL'));
  }

  async get(path) {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const answer = await get(this.url + path, { headers });
    return answer.status === 200 ? answer.json() : null;
  }

  /** All events of a session, in order; none where there is no such session. */
  async events(sessionId) {
    const events = [];
    for (let after = 0; ; ) {
      const page = await this.get(`/api/sessions/${sessionId}/events?limit=1000&after=${after}`);
      if (!page?.items.length) return events;
      events.push(...page.items);
      after = page.nextAfter;
    }
  }

  /** The member `n` of its actions, in order. */
  async numbers(sessionId) {
    const events = await this.events(sessionId);
    return events.filter(({ type, data }) => type === 'action' && 'n' in data).map(({ data }) => data.n);
  }
}

/** 0, 1, 2, … */
export const upTo = (count) => Array.from({ length: count }, (_, index) => index);

// ------------------------------------------------------------------------------------------------------- link

/** A server between the agents and the store. It does to each batch what comes next in `faults`, then passes it on. */
export class Link {
  faults = [];
  batches = []; // {at, body} of each that came

  static async create(store) {
    const link = new Link();
    const server = http.createServer((request, response) => link.#serve(store, request, response));
    server.listen(0, '127.0.0.1');
    await listening(server);
    link.url = `http://127.0.0.1:${server.address().port}`;
    atEnd(`the link at ${link.url} closes`, () => {
      server.closeAllConnections();
      server.close();
    });
    return link;
  }

  async #serve(store, request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts);
    if (request.method === 'POST') this.batches.push({ at: Date.now(), body: body.toString() });
    const fault = request.method === 'POST' ? this.nextFault(body.toString()) : null;
    await (FAULTS[fault] ?? fault ?? FAULTS.pass)(response, () => forward(store, request, body));
  }

  nextFault() {
    return this.faults.shift() ?? 'pass';
  }
}

function forward(store, { method, url, headers }, body) {
  const { 'content-type': type, authorization } = headers;
  const kept = { ...(type && { 'content-type': type }), ...(authorization && { authorization }) };
  return get(store.url + url, { method, headers: kept, body: method === 'GET' ? undefined : body });
}

const says = (status, headers = {}, body = '') => (response) => response.writeHead(status, headers).end(body);

/** As the store itself does. */
const refuses = (status, detail = 'It is bad') =>
  says(status, { 'content-type': 'application/problem+json' }, JSON.stringify({ title: 'Bad', status, detail }));

const FAULTS = {
  async pass(response, pass) {
    const answer = await pass();
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' });
    response.end(Buffer.from(await answer.arrayBuffer()));
  },
  drop: (response) => response.destroy(),
  reset: (response) => response.socket.resetAndDestroy(),
  async resetAfterCommit(response, pass) {
    await (await pass()).arrayBuffer();
    response.socket.resetAndDestroy();
  },
  async halfAnAnswer(response, pass) {
    const bytes = Buffer.from(await (await pass()).arrayBuffer());
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 10), () => response.destroy());
  },
  async delay(response, pass) {
    await pause(150);
    await FAULTS.pass(response, pass);
  },
  500: says(500),
  429: says(429),
  404: says(404),
  redirect: says(302, { location: 'http://127.0.0.1:1/elsewhere' }),
  notTheStore: says(200, { 'content-type': 'text/html' }, '<h1>It works!</h1>'),
  notTheStoreEither: says(200, { 'content-type': 'application/json' }, '{"success":true}'),
};
export const FAULT_NAMES = Object.keys(FAULTS);
export { refuses, says };

// --------------------------------------------------------------------------------------------------- programs

/** Run a program of these lines, with the agent and its most used calls. `{child, done}`; done: what became of it. */
export function begin(lines, env = {}, command = []) {
  const source = `import * as agent from ${JSON.stringify(AGENT)};\nconst { ${NAMES.join(', ')} } = agent;\n${lines}`;
  const node = [process.execPath, '--unhandled-rejections=strict', '--input-type=module', '-e'];
  return started([...command, ...node, source], env);
}

const NAMES = ['enter', 'logAction', 'flush', 'close'];

export const run = (lines, env, command) => begin(lines, env, command).done;

function started([program, ...words], env) {
  const child = spawn(program, words, { env: { ...OUTSIDE, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = { stdout: '', stderr: '' };
  child.stdout.on('data', (text) => (ended.stdout += text));
  child.stderr.on('data', (text) => (ended.stderr += text));
  const closed = new Promise((resolve) => child.once('close', (code, signal) => resolve({ ...ended, code, signal })));
  const what = () => `${words.at(-1)} ends; it said: ${JSON.stringify(ended)}`;
  const done = within(closed, what, PROGRAM_MS).finally(() => child.kill('SIGKILL'));
  atEnd(`the program ${child.pid} ends`, () => child.kill('SIGKILL'));
  done.catch(() => {}); // for whoever waits for it: it is no failure of the test that happens to run then
  return { child, done, said: ended };
}

/** The environment of a program of this session. */
export function environment(store, spool, sessionId = newSession()) {
  return { SESSION_SERVICE_URL: store.url, SESSION_SPOOL_DIR: spool, SESSION_ID: sessionId };
}

/** A program that ended as it should, and said nothing to stderr. */
export function assertQuiet(ended) {
  const { code, signal, stderr } = ended;
  assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' });
}
