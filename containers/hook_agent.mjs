#!/usr/bin/env node
/**
 * What a Node program tells the session store of what it does: a queue on disk, delivered in the background, in order.
 *
 * One file, Node 20 or newer, no dependency. In reading order: plain values, events, owners (which process a queue
 * belongs to), queues (on disk: appended first, deleted once acknowledged), store (HTTP, and what an answer means),
 * channel (one process's way from its queue to the store), agent (the calls), leaving (what becomes of the rest).
 *
 *     import { logAction, finalizeSession } from './hook_agent.mjs';
 *     await logAction({ type: 'file_write', path: 'src/server.js', lines: 42 });
 *     await finalizeSession({ status: 'success' });
 *
 * No call throws, rejects, or waits for the network, but those that ask the store something: `resume`,
 * `testConnection`, `flush` and `close` wait a bounded time, and do not reject either.
 *
 * What is said goes out as it was said: the store takes secrets out of it, and what is not quite valid it keeps as what
 * it can be. So a queue may hold secrets, and is for its owner alone.
 */

import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { homedir, hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const SELF = fileURLToPath(import.meta.url);
/** False where a bundler has made this a part of another file, which must not be started as if it were this one. */
const IS_ITSELF = basename(SELF) === 'hook_agent.mjs';

const MAX_DEPTH = 64; // of a whole line: the event, its data, and what is inside
const MAX_LINE = 4 << 20; // characters; the store cuts to 1 MiB itself, once it has taken secrets out of the whole
const SEGMENT_BYTES = 1 << 20;
const SPOOL_BYTES = 64 << 20;
const DEAD_BYTES = 4 << 20; // of each of two files
const BATCH_LINES = 500;
const BATCH_BYTES = 512 << 10;
const MAX_ANSWER = 8 << 20; // characters

const ANSWER_MS = 30_000;
const ASK_MS = 5_000;
const LEAVE_MS = 2_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_RETRY_AFTER_MS = 300_000;
const REFUSED_PAUSE_MS = 60_000;
const TOKEN_LOOK_MS = 1_000;
const ADOPT_MS = 5_000;

// -------------------------------------------------------------------------------------------------------- plain values

/** Why something failed, whatever was thrown. */
const reasonOf = (error) => orNull(() => String(error?.message ?? error)) ?? 'unknown';

const orNull = (work) => { try { return work(); } catch { return null; } };

/** Any value as JSON has it; what cannot even be looked at is told by why, alone if it is a member of `value`. */
function plain(value, isWhole = true) {
  try {
    return JSON.parse(JSON.stringify(value, showing()) ?? 'null');
  } catch (error) {
    const members = isWhole ? orNull(() => Object.entries(value)) : null;
    if (members === null) return `[unreadable: ${reasonOf(error)}]`;
    const said = members.filter(([, member]) => member !== undefined);
    return Object.fromEntries(said.map(([name, member]) => [name, plain(member, false)]));
  }
}

/** What JSON.stringify is to show of each value, once toJSON has been asked. */
function showing() {
  const around = []; // the containers that it is in: as they are, and as they are shown
  return function (name, value) {
    while (around.length && around.at(-1).shown !== this) around.pop();
    if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    if (typeof value === 'function') return `[function ${value.name}]`;
    if (typeof value === 'symbol') return String(value);
    if (value === null || typeof value !== 'object') return value;
    if (around.some((container) => container.value === value)) return '[circular]';
    if (around.length > MAX_DEPTH - 2) return '[nested too deep]';
    const shown = contentOf(this[name]) ?? value;
    around.push({ value, shown });
    return shown;
  };
}

/** What is in an object of which JSON would show nothing, or too much. */
function contentOf(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Error) return { name: value.name, message: value.message, stack: value.stack, ...value };
  if (value instanceof Map) return Object.fromEntries([...value].map(([name, member]) => [String(name), member]));
  if (value instanceof Set || ArrayBuffer.isView(value)) return Array.from(value);
  return value instanceof RegExp ? String(value) : null;
}

/** The JSON text of an event's data; of what is longer than a queue takes, the beginning, and that it was longer. */
function jsonOf(data) {
  const text = JSON.stringify(data);
  if (text.length <= MAX_LINE) return text;
  const truncated = { bytes: Buffer.byteLength(text), sha256: createHash('sha256').update(text).digest('hex') };
  const end = text.lastIndexOf(' ', 65_536); // between two words: half a secret would be none to the store
  const short = Object.entries(data).filter(([, value]) => JSON.stringify(value).length < 256).slice(0, 100);
  return JSON.stringify({ ...Object.fromEntries(short), text: text.slice(0, Math.max(end, 1_000)), truncated });
}

// -------------------------------------------------------------------------------------------------------------- events

const isId = (value) => typeof value === 'string' && /^[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}$/.test(value);
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isTime = (value) => typeof value === 'string' && /^\d{4}-\d\d-\d\d[Tt ]/.test(value) && Date.parse(value) > 0;

const randomHex = (bytes = 4) => randomBytes(bytes).toString('hex');
const idPrefix = randomHex(6);
let idNumber = 0;
const newId = () => `${idPrefix}-${(idNumber += 1).toString(36)}`;

/** One line of a batch, and the eventId in it. The program's own eventId and time stand beside the data, if they are
 * ones; a state is the program's own document, whatever its members are called. */
function lineOf(type, { sessionId, userId }, given) {
  const own = type === 'state_updated' ? {} : given;
  const eventId = isId(own.eventId) ? own.eventId : newId();
  const timestamp = isTime(own.timestamp) ? own.timestamp : new Date().toISOString();
  const data = { ...given };
  if (own.eventId === eventId) delete data.eventId;
  if (own.timestamp === timestamp) delete data.timestamp;
  const head = { sessionId, ...(userId && { userId }), eventId, timestamp, type };
  return { eventId, line: `${JSON.stringify(head).slice(0, -1)},"data":${jsonOf(data)}}\n` };
}

/** A setting as text; empty where it is none. */
const textOf = (value) => (['string', 'number'].includes(typeof value) || value instanceof URL ? String(value) : '');

/** An id that the store takes, as near to the given one as can be; empty where nothing of it can be kept. */
function fitId(value) {
  const text = textOf(value).replace(/[^A-Za-z0-9._-]/g, '-').replace(/\.{2,}/g, '.');
  return text.replace(/^[._-]+/, '').slice(0, 128);
}

// -------------------------------------------------------------------------------------------------------------- owners

/** When a process started, in clock ticks since the boot: what tells it from a later one with the same id. */
function startOf(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

const BOOT = orNull(() => fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1')) ?? hostname();
const PIDS = orNull(() => fs.readlinkSync('/proc/self/ns/pid')) ?? '';
/** The boot and the container, within which a process id means something. */
const NAMESPACE = createHash('sha256').update(BOOT + PIDS).digest('hex').slice(0, 8);
const OWNER = `${process.pid}-${orNull(() => startOf(process.pid)) ?? 0}-${NAMESPACE}`;

function isAlive(owner) {
  const [pid, start, place] = owner.split('-');
  if (place !== NAMESPACE) return false;
  if (start !== '0') return orNull(() => startOf(pid)) === start;
  return orNull(() => process.kill(Number(pid), 0)) ?? false;
}

// -------------------------------------------------------------------------------------------------------------- queues

/** In the spool folder each process has a queue of its own, a folder `node-TIME-RANDOM.OWNER` of segments
 * `00000001.ndjson`, … and `position.json`, before which everything is acknowledged. Renaming it makes it another
 * process's: one only can. So two senders never divide a queue; were both to send all of it, in its order, each event
 * would still be stored once, and after the one before it. */
const QUEUE = /^(node-\d{13}-[0-9a-f]{8})\.(free|(send-)?(\d+-\d+-[0-9a-f]{8}))$/;
const SEGMENT = /^\d{8}\.ndjson$/;
const SENDER_LOCK = 'node-sender.lock';
const LOSS = 'events_dropped';
const { O_RDONLY, O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW = 0 } = fs.constants;
const APPENDING = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW;

/** The first of these folders that can be had. Raises why the last one cannot. */
function openSpool(wanted) {
  const state = process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state');
  const first = orNull(() => madeFolder(resolve(wanted ?? join(state, 'session-store', 'spool'))));
  return first ?? madeFolder(join(ownFolder(join(tmpdir(), `session-store-${process.getuid?.() ?? 'user'}`)), 'spool'));
}

function madeFolder(folder) { // `recursive` would never return where a folder that is there takes none, as in /proc
  if (!fs.existsSync(folder)) orNull(() => fs.mkdirSync(join(madeFolder(dirname(folder)), basename(folder)), 0o700));
  fs.accessSync(folder, fs.constants.W_OK | fs.constants.X_OK);
  return folder;
}

/** In a folder that everybody writes to, somebody else may have made this one, or a link in its place. */
function ownFolder(folder) {
  orNull(() => fs.mkdirSync(folder, { mode: 0o700 }));
  const found = fs.lstatSync(folder);
  if (!found.isDirectory() || found.uid !== (process.getuid?.() ?? found.uid)) throw new Error(`${folder} is not ours`);
  fs.chmodSync(folder, 0o700);
  return folder;
}

class Queue {
  segment = ''; // the one that is appended to
  size = 0; // of it

  constructor(folder) {
    this.folder = folder;
    [, this.family, this.owner, this.isSenders] = QUEUE.exec(basename(folder));
    const { segment, offset } = orNull(() => JSON.parse(fs.readFileSync(this.path('position.json'), 'utf8'))) ?? {};
    this.place = SEGMENT.test(segment) && Number.isInteger(offset) ? { segment, offset } : { segment: '', offset: 0 };
  }

  static create(spool, owner) {
    const folder = join(spool, `node-${Date.now()}-${randomHex()}.${owner}`);
    return new Queue(madeFolder(folder));
  }

  /** Those in a spool folder, oldest first. */
  static allIn(spool) {
    const names = (orNull(() => fs.readdirSync(spool)) ?? []).filter((name) => QUEUE.test(name));
    return names.sort().map((name) => new Queue(join(spool, name)));
  }

  get isFree() { return this.owner === 'free' || Boolean(this.isSenders) || !isAlive(this.owner); }
  path(name) { return join(this.folder, name); }

  /** None where the queue is somebody else's by now. What is there and cannot be read must not be taken for nothing. */
  segments() {
    return fs.existsSync(this.folder) ? fs.readdirSync(this.folder).filter((name) => SEGMENT.test(name)).sort() : [];
  }

  begin() {
    this.segment = `${String(Number.parseInt(this.segment || '0', 10) + 1).padStart(8, '0')}.ndjson`;
    this.size = 0;
  }

  append(line) {
    try {
      fs.appendFileSync(this.path(this.segment), line, { mode: 0o600, flag: APPENDING });
      this.size += Buffer.byteLength(line);
    } catch (error) {
      orNull(() => fs.truncateSync(this.path(this.segment), this.size)); // no half line before the next one
      throw error;
    }
  }

  /** The next lines that are not acknowledged, or null. Removes segments before them. Raises what reading raises. */
  next(most) {
    for (const name of this.segments()) {
      const batch = this.read(name, most);
      if (batch) return batch;
      if (name === this.segment) return null;
      orNull(() => fs.unlinkSync(this.path(name)));
    }
    return null;
  }

  /** The bytes of a segment that are not acknowledged, which may begin after some that are. */
  startOf(name) { return name === this.place.segment ? this.place.offset : 0; }
  rest(name) {
    const bytes = fs.readFileSync(this.path(name), { flag: O_RDONLY | O_NOFOLLOW });
    return bytes.subarray(name < this.place.segment ? bytes.length : this.startOf(name));
  }

  /** At most so many lines, from the position on. A torn last line is taken for one: the store will say what it is. */
  read(name, most) {
    const bytes = this.rest(name);
    const lines = [];
    let end = 0;
    while (end < bytes.length && lines.length < most) {
      const newline = bytes.indexOf(10, end);
      const next = newline < 0 ? bytes.length : newline + 1;
      if (lines.length && next > BATCH_BYTES) break;
      lines.push(bytes.subarray(end, newline < 0 ? next : newline));
      end = next;
    }
    return end ? { queue: this, segment: name, end: this.startOf(name) + end, lines } : null;
  }

  /** Everything before this place is acknowledged. Not fsynced: an older position only means sending again. */
  advance(segment, offset) {
    this.place = { segment, offset };
    orNull(() => {
      fs.writeFileSync(this.path('position.tmp'), JSON.stringify(this.place), { mode: 0o600 });
      fs.renameSync(this.path('position.tmp'), this.path('position.json'));
    });
  }

  end() { return { segment: this.segment, offset: this.size }; }

  isPast({ segment, offset }) {
    const { place } = this;
    return offset === 0 || place.segment > segment || (place.segment === segment && place.offset >= offset);
  }

  /** Make it a process's own. False: somebody else was first. */
  give(owner) {
    const folder = join(dirname(this.folder), `${this.family}.${owner}`);
    if (folder !== this.folder && orNull(() => (fs.renameSync(this.folder, folder), true)) === null) return false;
    this.folder = folder;
    return true;
  }

  /** What has come into it meanwhile stays. */
  remove() {
    for (const name of [this.segment, 'position.tmp', 'position.json']) orNull(() => fs.unlinkSync(this.path(name)));
    orNull(() => fs.rmdirSync(this.folder));
  }
}

/** How many events these lines are; of a report of lost ones, as many as it reports. */
function countOf(bytes) {
  const lines = bytes.toString().split('\n').filter(Boolean);
  const reported = (line) => line.includes(`"type":"${LOSS}"`) && orNull(() => JSON.parse(line).data.count);
  return lines.reduce((sum, line) => sum + (Number(reported(line)) || 1), 0);
}

/** Keep what the store has refused for good, with the reason; the older of two files goes at the bound. */
function bury(spool, status, reason, bytes) {
  const text = bytes.toString();
  const event = orNull(() => (JSON.parse(text), text)) ?? JSON.stringify(text);
  const head = JSON.stringify({ at: new Date().toISOString(), status, reason });
  orNull(() => {
    const path = join(madeFolder(join(spool, 'dead')), 'node.ndjson');
    const size = orNull(() => fs.statSync(path).size) ?? 0;
    if (size > DEAD_BYTES) fs.renameSync(path, join(spool, 'dead', 'node-older.ndjson'));
    fs.writeFileSync(path, `${head.slice(0, -1)},"event":${event}}\n`, { mode: 0o600, flag: APPENDING });
  });
}

// --------------------------------------------------------------------------------------------------------------- store

const LATER = { is: 'later', after: 0 };

class Store {
  constructor(url, token, tokenFile) {
    this.url = url.replace(/\/+$/, '');
    this.tokenFile = token ? null : tokenFile;
    this.token = token;
    this.renewToken();
  }

  /** Whether the token's file has another one than before. */
  renewToken() {
    const before = this.token;
    const read = this.tokenFile && orNull(() => fs.readFileSync(this.tokenFile, 'utf8').trim());
    this.token = read || before;
    this.trouble = this.tokenFile && !read ? `uid ${process.getuid?.()} reads none in ${this.tokenFile}. ` : '';
    return this.token !== before;
  }

  /** Post lines; what the answer means (`verdictOn`). Does not reject. */
  async post(lines) {
    const body = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
    const within = ANSWER_MS + body.length / 32; // a way may be slow: 32 bytes in each further millisecond
    return this.#answer('POST', '/api/events', { body, within }).then((it) => verdictOn(it, lines)).catch(() => LATER);
  }

  /** The JSON of a GET that answered 200, or null. Does not reject. It keeps the program running until then. */
  async get(path) {
    const answer = this.#answer('GET', path, { within: ASK_MS, holds: true });
    return answer.then(({ status, text }) => (status === 200 ? JSON.parse(text) : null)).catch(() => null);
  }

  /** `{status, headers, text}`, `within` milliseconds, or rejects. It `holds` the program until then, or does not. */
  async #answer(method, path, { body = null, within = ANSWER_MS, holds = false }) {
    const url = new URL(this.url + path);
    if (!['http:', 'https:'].includes(url.protocol)) throw new Error(`${url.protocol} is not spoken here`);
    const { request } = await import(`node:${url.protocol.slice(0, -1)}`); // late: not every program sends
    const headers = {
      ...(this.token && { authorization: `Bearer ${this.token}` }),
      ...(body && { 'content-type': 'application/x-ndjson', 'content-length': body.length }),
    };
    return new Promise((resolve, reject) => {
      const sent = request(url, { method, headers, agent: false }); // no agent: it asks no proxy
      const timer = setTimeout(() => sent.destroy(new Error('no answer in time')), within);
      if (!holds) sent.on('socket', (socket) => (socket.unref(), timer.unref()));
      sent.on('response', (response) => {
        const { statusCode: status, headers } = response;
        resolve(readAll(response).then((text) => ({ status, headers, text })));
      });
      sent.on('error', reject);
      sent.on('close', () => (clearTimeout(timer), reject(new Error('the connection ended before the answer'))));
      sent.end(body);
    });
  }
}

async function readAll(response, text = '') {
  for await (const part of response.setEncoding('utf8')) {
    if ((text += part).length > MAX_ANSWER) throw new Error('the answer is too long');
  }
  return text;
}

/** What an answer to a batch means: `taken` (all but `rejected`), `bad` (something in it, or too much at once),
 * `refused` (the token), or `later`: all else, also a 400 that is not the store's but of what stands before it. */
function verdictOn({ status, headers, text }, lines) {
  const answer = orNull(() => JSON.parse(text)) ?? {};
  const detail = String(answer.detail ?? `${status} ${text.slice(0, 200)}`);
  if (status === 200) return verdictOnTaken(answer, lines);
  const isProblem = /^application\/problem\+json\s*(;|$)/i.test(headers['content-type']) && answer.status === status;
  const isBad = isProblem ? [400, 413, 422].includes(status) : status === 413 && lines.length > 1;
  if (isBad) return { is: 'bad', status, detail };
  if (status === 401 || status === 403) return { is: 'refused', status, detail };
  return { is: 'later', after: retryAfter(headers['retry-after']) };
}

/** It has to account for each line. */
function verdictOnTaken({ success, accepted, duplicates, rejected, rejectedTotal }, lines) {
  const isRejection = (one) => lines[one?.line - 1] && Number.isInteger(one.status);
  const isKnown = success === true && Array.isArray(rejected) && rejected.every(isRejection);
  const isWhole = isKnown && (rejectedTotal ?? rejected.length) === rejected.length;
  if (!isWhole || accepted + duplicates + rejected.length !== lines.filter(({ length }) => length).length) return LATER;
  const isLate = rejected.some(({ status }) => status >= 500 || [408, 425, 429].includes(status));
  return isLate ? LATER : { is: 'taken', rejected };
}

/** Milliseconds; the header has seconds or a date. */
function retryAfter(value) {
  const wait = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Math.min(Math.max(wait || 0, 0), LONGEST_RETRY_AFTER_MS);
}

// ------------------------------------------------------------------------------------------------------------- channel

const complaints = new Set();

/** To whoever runs the program, once about each thing. */
function complain(about, text) {
  if (complaints.size !== complaints.add(about).size) console.error(`hook_agent: ${text}`);
}

/** From this process to one store: its queue, those that it has taken over from processes that are gone, its sender. */
class Channel {
  #own = null;
  #taken = []; // queues that others left, oldest first: delivered before our own
  #dropped = 0; // events that the disk has not taken
  #sending = null; // the batch that is on its way
  #running = null;
  #failures = 0; // one after the other
  #tries = 0; // that have failed, ever
  #adoptedAt = -Infinity;
  #endPause = null;
  #gaveUpAt = null;

  constructor({ url, token, tokenFile, wantedSpool, owner = OWNER }) {
    this.store = new Store(url, token, tokenFile);
    Object.assign(this, { wantedSpool, owner });
    this.spool = orNull(() => openSpool(wantedSpool));
    this.bound = process.env.SESSION_SPOOL_BYTES > 0 ? Number(process.env.SESSION_SPOOL_BYTES) : SPOOL_BYTES;
    this.segmentBytes = Math.min(SEGMENT_BYTES, Math.ceil(this.bound / 8));
    this.isAnswering = true; // as far as is known
  }

  /** Keep a line, of this session, and have it delivered. Raises what the disk does: then it is lost, and counted. */
  append(line, session) {
    try {
      this.#write(line, session);
      if (this.#dropped) this.#report(session, newId(), this.#dropped);
      this.#dropped = 0;
    } catch (error) {
      this.#dropped += 1;
      complain('the disk', `what is logged cannot be kept in ${this.spool ?? 'any folder'}: ${reasonOf(error)}`);
      throw error;
    }
    if (isLeaving) leave(this);
    else this.wake();
  }

  /** What a segment has no room for may have it in the next. Where somebody else has taken our queue, or removed it,
   * the line may be theirs or lost: it goes into a new one, too. Looked at afterwards: nothing can come between. */
  #write(line, session, isAgain = false) {
    this.spool ??= openSpool(this.wantedSpool);
    const own = (this.#own ??= Queue.create(this.spool, this.owner));
    const isBegun = isAgain || !own.segment || own.size + Buffer.byteLength(line) > this.segmentBytes;
    let failure = null;
    try {
      if (isBegun) own.begin();
      own.append(line);
    } catch (error) {
      failure = error;
    }
    if (!fs.existsSync(own.folder)) this.#own = null;
    else if (failure === null) return isBegun && this.#makeRoom(session);
    if (failure && isAgain) throw failure;
    this.#write(line, session, true);
  }

  /** Keep the bound: the oldest go, and are reported before. What may be stored at this moment never does. */
  #makeRoom(session) {
    const spared = [this.#own.path(this.#own.segment), this.#sending?.queue.path(this.#sending.segment)];
    const found = Queue.allIn(this.spool).flatMap((queue) => queue.segments().map((name) => ({ queue, name })));
    const sizes = found.map(({ queue, name }) => orNull(() => fs.statSync(queue.path(name)).size) ?? 0);
    let excess = sizes.reduce((sum, size) => sum + size, 0) - this.bound + this.segmentBytes;
    for (const [index, { queue, name }] of found.entries()) {
      if (excess <= 0) return;
      if (spared.includes(queue.path(name))) continue;
      const count = countOf(orNull(() => queue.rest(name)) ?? '');
      if (count) this.#report(session, `${queue.family}-${Number.parseInt(name, 10)}`, count);
      if (orNull(() => (fs.unlinkSync(queue.path(name)), true))) excess -= sizes[index];
    }
  }

  /** The same `name` gives the same eventId, so that a loss is not reported twice. */
  #report(session, name, count) {
    this.#own.append(lineOf('action', session, { eventId: `dropped-${name}`, type: LOSS, count }).line);
  }

  /** See to it that what waits is delivered. */
  wake() { if (!this.#running) setImmediate(() => this.run()).unref(); }

  /** Deliver until nothing waits, however long that takes. Does not reject. */
  run() {
    return (this.#running ??= this.#deliver().catch(() => {
      this.#running = null;
      this.#tries += 1;
      setTimeout(() => this.wake(), ANSWER_MS).unref();
    }));
  }

  async #deliver() {
    await null; // so that `run` has noted that it runs before it can be over
    this.adopt();
    let most = BATCH_LINES;
    for (let batch; (batch = this.#next(most)); ) {
      this.#sending = batch;
      const verdict = await this.store.post(batch.lines);
      this.#sending = null;
      this.isAnswering = ['taken', 'bad'].includes(verdict.is);
      if (!this.isAnswering) {
        most = Math.max(16, most >> 1); // it, or the way to it, may be slow
        await this.#waitAfter(verdict);
        continue;
      }
      this.#failures = 0;
      most = verdict.is === 'taken' ? Math.min(most * 2, BATCH_LINES) : Math.max(1, batch.lines.length >> 1);
      if (verdict.is !== 'taken' && batch.lines.length > 1) continue;
      const refused = verdict.rejected ?? [{ ...verdict, line: 1 }];
      for (const one of refused) this.#refuse(one, batch.lines[one.line - 1]);
      batch.queue.advance(batch.segment, batch.end);
    }
    this.#running = null; // at once: whatever is appended from here on needs another run
  }

  /** What is of a session that has moved goes to the store that has it, where that is listed; all else is kept. */
  #refuse({ status, detail, movedTo }, bytes) {
    const isHandedOn = status === 421 && orNull(() => fleet().handOn(this, movedTo, bytes, channelTo));
    if (!isHandedOn) bury(this.spool, status, detail, bytes);
  }

  #next(most) {
    while (this.#taken.length) {
      try {
        const batch = this.#taken[0].next(most);
        if (batch) return batch;
        this.#taken.shift().remove();
      } catch {
        this.#taken.shift(); // it cannot be read: left where it is, it must not hold up all others
      }
    }
    return this.#own?.next(most) ?? null;
  }

  async #waitAfter({ is, status, after, detail }) {
    this.#tries += 1;
    if (is === 'refused') await this.#waitForToken(status, detail);
    // Between nothing and a bound that doubles: those who failed together do not come again together.
    else await this.#pause(after || Math.random() * (FIRST_PAUSE_MS << this.#failures), !after);
    this.#failures = Math.min(this.#failures + 1, 7); // 25 seconds
    this.adopt();
  }

  async #waitForToken(status, detail) {
    const trouble = `the session store at ${this.store.url} refused the token (${status}: ${detail}). `;
    const remedy = `What is logged waits in ${this.spool}; set SESSION_TOKEN or SESSION_TOKEN_FILE.`;
    for (let waited = 0; waited < REFUSED_PAUSE_MS && !this.store.renewToken(); waited += TOKEN_LOOK_MS) {
      complain('the token', trouble + this.store.trouble + remedy);
      await this.#pause(TOKEN_LOOK_MS, false);
    }
  }

  /** Neither this nor the sender keeps a program running that has nothing else to do. */
  #pause(milliseconds, mayBeCut) {
    const over = new AbortController();
    this.#endPause = mayBeCut ? () => over.abort() : null;
    return pause(milliseconds, null, { ref: false, signal: over.signal }).catch(() => {});
  }

  /** Take over the queues of processes that are gone, and those that only a sender has. */
  adopt(atMostEvery = ADOPT_MS) {
    if (this.spool === null || performance.now() - this.#adoptedAt < atMostEvery) return;
    this.#adoptedAt = performance.now();
    const found = Queue.allIn(this.spool).filter(({ folder, isFree }) => isFree && !folder.endsWith(`.${this.owner}`));
    this.#taken.push(...found.filter((queue) => queue.give(this.owner)));
    this.#taken.sort((one, other) => (one.family < other.family ? -1 : 1));
  }

  /** True once all that was appended until now is delivered; false after so long, or (impatient) after a failure. */
  async flush(milliseconds, { isImpatient = false } = {}) {
    const [queue, end, tries, until] = [this.#own, this.#own?.end(), this.#tries, performance.now() + milliseconds];
    while (queue !== null && !queue.isPast(end)) {
      if (performance.now() >= until || (isImpatient && this.#tries !== tries)) return false;
      if (this.#tries === tries) this.#endPause?.();
      this.run();
      await pause(5); // this does keep the program running
    }
    return true;
  }

  /** A moment for what is left, if the store is there, and only one for the same. Whether all of it is delivered. */
  async spareMoment() {
    const left = JSON.stringify([this.#own?.folder, this.#own?.end()]);
    const isSpent = !this.isAnswering || this.#gaveUpAt === left;
    this.#gaveUpAt = left;
    return this.flush(isSpent ? 0 : LEAVE_MS, { isImpatient: true });
  }

  /** Called when the process ends: what is left is for whoever comes next. Whether anything is. */
  leave() {
    const isLeft = this.#next(1) !== null;
    const queues = [...this.#taken, this.#own].filter(Boolean);
    queues.forEach((queue) => (isLeft ? queue.give('free') : queue.remove()));
    return isLeft;
  }
}

const channels = new Map();
const fleet = () => createRequire(import.meta.url)('./hook_agent_fleet.cjs');

/** The one way from this process to a store, of several the session's. What is not given the environment says. */
function channelTo({ serviceUrl, token, tokenFile, spoolDir, owner, sessionId } = {}) {
  const { SESSION_SERVICE_URL, SESSION_TOKEN, SESSION_TOKEN_FILE, SESSION_SPOOL_DIR } = process.env;
  const settings = {
    url: textOf(serviceUrl) || SESSION_SERVICE_URL || 'http://localhost:9000',
    token: textOf(token) || (tokenFile ? '' : SESSION_TOKEN) || null,
    tokenFile: textOf(tokenFile) || SESSION_TOKEN_FILE || null,
    wantedSpool: textOf(spoolDir) || SESSION_SPOOL_DIR || null,
    owner,
  };
  const own = settings.url.includes(',') && orNull(() => fleet().storeOf(sessionId, settings, openSpool, channelTo));
  const key = JSON.stringify(Object.assign(settings, own || { url: settings.url.split(',')[0].trim() }));
  if (!channels.has(key)) channels.set(key, new Channel(settings));
  return channels.get(key);
}

// --------------------------------------------------------------------------------------------------------------- agent

/** What a call was given, as an object that is ours to change; anything else becomes its member `name`. */
function bodyOf(given, name) {
  const body = plain(given) ?? {};
  return isObject(body) ? body : { [name]: body };
}

/** One session, as its program sees it. `options`, each from the environment where it is not given: `sessionId`,
 * `serviceUrl`, `userId`, `token`, `tokenFile`, `parentSession`, `tags`, `spoolDir`; and `initial`, `metadata`. */
export class SessionHookAgent {
  #options;
  #is = null;
  #hasEntered = false;

  constructor(options = {}) {
    this.#options = isObject(options) ? options : { sessionId: options };
    const calls = Object.entries(Object.getOwnPropertyDescriptors(SessionHookAgent.prototype)); // each handed on alone
    for (const [name, { value }] of calls) if (value && name !== 'constructor') this[name] = value.bind(this);
  }

  get sessionId() { return this.#self.sessionId; }
  get userId() { return this.#self.userId || null; }
  get serviceUrl() { return this.#self.channel.store.url; }

  /** Read when first used, so that importing fixes nothing. */
  get #self() {
    const { sessionId, userId } = this.#options;
    this.#is ??= {
      sessionId: fitId(sessionId || process.env.SESSION_ID) || `session-${Date.now()}-${randomHex()}`,
      userId: textOf(userId) || process.env.SESSION_USER_ID,
    };
    this.#is.channel ??= channelTo({ ...this.#options, sessionId: this.#is.sessionId });
    return this.#is;
  }

  #log(type, data) {
    if (type !== 'session_created') this.#enter();
    try {
      const { eventId, line } = lineOf(type, this.#self, data);
      this.#self.channel.append(line, this.#self);
      return { success: true, eventId };
    } catch (error) {
      return { success: false, error: reasonOf(error) };
    }
  }

  #enter(given = {}) {
    if (this.#hasEntered) return { success: true };
    this.#hasEntered = true;
    const { tags, initial, metadata } = this.#options;
    const parentSession = this.#options.parentSession || process.env.SESSION_PARENT_ID || undefined;
    const ownTags = process.env.SESSION_TAGS?.split(',').map((tag) => tag.trim()).filter(Boolean);
    const told = { parentSession, tags: tags ?? ownTags, initial, metadata };
    return this.#log('session_created', bodyOf({ ...told, ...bodyOf(given, 'initial') }));
  }

  /** Create the session, or resume it; the first other call does it, too. `{initial?, tags?, metadata?, …}` */
  async enter(beginning) { return { ...this.#enter(beginning), sessionId: this.sessionId }; }

  /** `{type, …}` */
  async logAction(action) { return this.#log('action', bodyOf(action, 'value')); }
  async logResponse(response) { return this.#log('response', bodyOf(response, 'value')); }

  /** Lay members over the state: objects merge, all else replaces. */
  async updateState(members) { return this.#log('state_updated', bodyOf(members, 'value')); }

  /** `{description, priority?, status?, id?, …}`; answers with the goal and its `id`. */
  async addGoal(given) {
    const goal = { priority: 'medium', status: 'pending', ...bodyOf(given, 'description') };
    goal.id ??= `goal-${newId()}`;
    const { eventId: _, timestamp: __, ...told } = { ...goal, id: fitId(goal.id) };
    return { ...told, ...this.#log('goal_added', goal), goal: told };
  }

  /** `{status?, …}` */
  async updateGoal(id, given) { return this.#log('goal_updated', { ...bodyOf(given, 'status'), goalId: plain(id) }); }

  /** `{type, task?, agentId?, parentAgentId?, subsession?}`; answers with the agent and its `agentId`. */
  async spawnAgent(given) {
    const agent = { timestamp: new Date().toISOString(), ...bodyOf(given, 'type') };
    agent.agentId ??= `agent-${newId()}`;
    const { eventId: _, timestamp: spawnedAt, ...told } = { ...agent, agentId: fitId(agent.agentId) };
    const known = { task: null, subsession: null, ...told, status: 'spawned', spawnedAt };
    return { ...known, ...this.#log('agent_spawned', agent) };
  }

  /** `{result?, status?}`, or the result alone. */
  async completeAgent(agentId, given) {
    const body = bodyOf(given, 'result');
    const isEnd = ['result', 'status', 'eventId', 'timestamp'].some((name) => name in body);
    const end = isEnd || !Object.keys(body).length ? body : { result: body };
    return this.#log('agent_completed', { ...end, agentId: plain(agentId) });
  }

  /** `{status?, outcome?, response?, exitCode?}`; `success` where the status is left out. */
  async finalizeSession(given) {
    const name = ['success', 'failed', 'cancelled'].includes(given) ? 'status' : 'outcome';
    return this.#log('session_finalized', bodyOf(given, name));
  }

  /** Whether the store answers; and from there all that is needed to go on where the session stopped, or null. */
  async testConnection() { return (await this.#self.channel.store.get('/health')) !== null; }
  async resume() { return this.#self.channel.store.get(`/api/sessions/${this.sessionId}/resume`); }

  /** Whether all that was logged until now is delivered within so many milliseconds. */
  async flush(milliseconds = 30_000) { return this.#self.channel.flush(Number(milliseconds) || 0); }

  /** Give what is left two seconds, if the store is there. May be called again, and so may everything else. */
  async close() { return this.#self.channel.spareMoment(); }
}

const hookAgent = new SessionHookAgent();
export const { enter, logAction, logResponse, updateState, addGoal, updateGoal, spawnAgent, completeAgent } = hookAgent;
export const { finalizeSession, testConnection, resume, flush, close } = hookAgent;
export default Object.assign(hookAgent, { SessionHookAgent });

// ------------------------------------------------------------------------------------------------------------- leaving

let isLeaving = false;

/** Neither comes where a signal ends the program: then the next process that starts finds the rest. */
process.on('beforeExit', () => channels.forEach((channel) => channel.spareMoment().catch(() => {})));
process.on('exit', () => {
  isLeaving = true; // the program's own handlers may still log something
  channels.forEach(leave);
});

const leave = (channel) => orNull(() => channel.leave() && sendFrom(channel));

/** The process that delivers what others have left in a spool, if there is one. */
const senderOf = (spool) => orNull(() => fs.readFileSync(join(spool, SENDER_LOCK), 'latin1')) ?? '';

/** Have a process of its own deliver what is left, unless one is at it already, or this is one. */
function sendFrom({ spool, owner, store }) {
  if (!IS_ITSELF || owner !== OWNER || isAlive(senderOf(spool))) return;
  const { NODE_OPTIONS: _, ...env } = process.env; // they are the program's: it may have preloaded anything
  Object.assign(env, { SESSION_SERVICE_URL: store.url, SESSION_SPOOL_DIR: spool });
  if (store.tokenFile) Object.assign(env, { SESSION_TOKEN: '', SESSION_TOKEN_FILE: store.tokenFile });
  else if (store.token) env.SESSION_TOKEN = store.token;
  const options = { cwd: '/', detached: true, stdio: 'ignore', windowsHide: true, env };
  spawn(process.execPath, [SELF, 'flush'], options).on('error', () => {}).unref();
}

/** Deliver what waits, however long that takes; one process at a time for each spool. A program that ends gives its
 * queue away before it looks for us, and we look for queues after we are gone: so none is left between us. */
async function stay() {
  const channel = channelTo({ owner: `send-${OWNER}` });
  const lock = join(channel.spool, SENDER_LOCK);
  const hold = setInterval(() => {}, 1 << 30);
  while (Queue.allIn(channel.spool).some(({ isFree }) => isFree) && !isAlive(senderOf(channel.spool))) {
    orNull(() => fs.unlinkSync(lock));
    if (orNull(() => fs.writeFileSync(lock, OWNER, { flag: 'wx', mode: 0o600 })) === null) break; // another was first
    channel.adopt(0);
    await channel.run();
    orNull(() => fs.unlinkSync(lock));
  }
  clearInterval(hold);
}

if (IS_ITSELF && process.argv[2] === 'flush' && orNull(() => fs.realpathSync(process.argv[1])) === SELF) stay();
