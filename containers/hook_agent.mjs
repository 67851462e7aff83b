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
import { homedir, hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const SELF = fileURLToPath(import.meta.url);
/** False where a bundler has made this a part of another file, which must not be started as if it were this one. */
const IS_ITSELF = basename(SELF) === 'hook_agent.mjs';

const MAX_DEPTH = 64; // of a whole line: the event, its data, and what is inside
const MAX_LINE = 4 << 20; // characters; the store cuts to 1 MiB itself, once it has taken secrets out of the whole
const KEPT_OF_LONGER = 65_536; // characters
const SEGMENT_BYTES = 1 << 20;
const SPOOL_BYTES = 64 << 20;
const DEAD_BYTES = 4 << 20; // of each of two files
const BATCH_LINES = 500;
const BATCH_BYTES = 512 << 10;
const MAX_ANSWER = 8 << 20; // characters

const ANSWER_MS = 30_000;
const ASK_MS = 5_000;
const LEAVE_MS = 2_000;
const POLL_MS = 5;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 30_000;
const LONGEST_RETRY_AFTER_MS = 300_000;
const REFUSED_PAUSE_MS = 60_000;
const TOKEN_LOOK_MS = 1_000;
const ADOPT_MS = 5_000;

// -------------------------------------------------------------------------------------------------------- plain values

/** Why something failed, whatever was thrown. */
const reasonOf = (error) => orNull(() => String(error?.message ?? error)) ?? 'unknown';

function orNull(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

const failureOf = (work) => {
  try {
    work();
  } catch (error) {
    return error;
  }
};

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
  const end = text.lastIndexOf(' ', KEPT_OF_LONGER); // between two words: half a secret would be none to the store
  return JSON.stringify({ text: text.slice(0, Math.max(end, 1_000)), truncated });
}

// -------------------------------------------------------------------------------------------------------------- events

const isId = (value) => typeof value === 'string' && /^[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}$/.test(value);
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isTime = (value) => typeof value === 'string' && /^\d{4}-\d\d-\d\d[Tt ]/.test(value) && Date.parse(value) > 0;

const randomHex = () => randomBytes(4).toString('hex');
const idPrefix = randomHex() + randomHex();
let idNumber = 0;
const newId = () => `${idPrefix}-${(idNumber += 1).toString(36)}`;

/**
 * One line of a batch, with its newline, and the eventId in it. The program's own eventId and time stand beside the
 * data, if they are ones; a state is the program's own document, whatever its members are called.
 */
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
function textOf(value) {
  return ['string', 'number', 'bigint'].includes(typeof value) || value instanceof URL ? String(value) : '';
}

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

/** The boot and the container, within which a process id means something. */
function namespace() {
  const boot = orNull(() => fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1')) ?? hostname();
  const pids = orNull(() => fs.readlinkSync('/proc/self/ns/pid')) ?? '';
  return createHash('sha256').update(boot + pids).digest('hex').slice(0, 8);
}

const NAMESPACE = namespace();
const OWNER = `${process.pid}-${orNull(() => startOf(process.pid)) ?? 0}-${NAMESPACE}`;
const NOBODY = 'free';

function isAlive(owner) {
  const [pid, start, place] = owner.split('-');
  if (place !== NAMESPACE) return false;
  if (start !== '0') return orNull(() => startOf(pid)) === start;
  return orNull(() => process.kill(Number(pid), 0)) ?? false;
}

// -------------------------------------------------------------------------------------------------------------- queues

/**
 * In the spool folder each process has a queue of its own, a folder `node-TIME-RANDOM.OWNER` of segments
 * `00000001.ndjson`, … and `position.json`, before which everything is acknowledged. Renaming it makes it another
 * process's: one only can. So two senders never divide a queue; were both to send all of it, in its order, each event
 * would still be stored once, and after the one before it.
 */
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

function madeFolder(folder) {
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
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
  #descriptor = null;
  #size = 0;

  constructor(folder) {
    this.folder = folder;
    [, this.family, this.owner, this.isSenders] = QUEUE.exec(basename(folder));
    this.segment = ''; // the one that is appended to
    const { segment, offset } = orNull(() => JSON.parse(fs.readFileSync(this.path('position.json'), 'utf8'))) ?? {};
    this.place = SEGMENT.test(segment) && Number.isInteger(offset) ? { segment, offset } : { segment: '', offset: 0 };
  }

  static create(spool, owner) {
    const folder = join(spool, `node-${Date.now()}-${randomHex()}.${owner}`);
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    return new Queue(folder);
  }

  /** Those in a spool folder, oldest first. */
  static allIn(spool) {
    const names = (orNull(() => fs.readdirSync(spool)) ?? []).filter((name) => QUEUE.test(name));
    return names.sort().map((name) => new Queue(join(spool, name)));
  }

  get isFree() { return this.owner === NOBODY || Boolean(this.isSenders) || !isAlive(this.owner); }

  path(name) { return join(this.folder, name); }

  /** None where the queue is somebody else's by now. What is there and cannot be read must not be taken for nothing. */
  segments() {
    return fs.existsSync(this.folder) ? fs.readdirSync(this.folder).filter((name) => SEGMENT.test(name)).sort() : [];
  }

  // ---- appending

  /** Whether a segment must be begun for this line, and room be made for it. */
  isFullFor(line, segmentBytes) {
    return this.#descriptor === null || (this.#size > 0 && this.#size + Buffer.byteLength(line) > segmentBytes);
  }

  begin() {
    this.close();
    const name = `${String(Number.parseInt(this.segment || '0', 10) + 1).padStart(8, '0')}.ndjson`;
    this.#descriptor = fs.openSync(this.path(name), APPENDING, 0o600);
    this.segment = name;
    this.#size = 0;
  }

  append(line) {
    try {
      fs.appendFileSync(this.#descriptor, line);
      this.#size += Buffer.byteLength(line);
    } catch (error) {
      orNull(() => fs.ftruncateSync(this.#descriptor, this.#size)); // no half line before the next one
      this.close(); // which may have room in another segment
      throw error;
    }
  }

  /** Have on disk what cannot be delivered yet; in the background, for it may take long. */
  sync() { if (this.#descriptor !== null) fs.fdatasync(this.#descriptor, () => {}); }

  close() {
    if (this.#descriptor !== null) orNull(() => fs.closeSync(this.#descriptor));
    return (this.#descriptor = null);
  }

  // ---- delivering

  /** The next lines that are not acknowledged, or null. Removes segments before them. Raises what reading raises. */
  next(most) {
    for (const name of this.segments()) {
      const batch = this.read(name, most);
      if (batch) return batch;
      if (this.#descriptor !== null && name === this.segment) return null;
      orNull(() => fs.unlinkSync(this.path(name)));
    }
    return null;
  }

  /** The bytes of a segment that are not acknowledged. */
  rest(name) {
    const bytes = fs.readFileSync(this.path(name), { flag: O_RDONLY | O_NOFOLLOW });
    return bytes.subarray(name < this.place.segment ? bytes.length : this.startOf(name));
  }

  startOf(name) { return name === this.place.segment ? this.place.offset : 0; }

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

  end() { return { segment: this.segment, offset: this.#size }; }

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

  remove() {
    this.close();
    orNull(() => fs.rmSync(this.folder, { recursive: true }));
  }
}

/** How many events these lines are; of a report of lost ones, as many as it reports. */
function countOf(bytes) {
  const lines = bytes.toString().split('\n').filter(Boolean);
  const reported = (line) => line.includes(`"type":"${LOSS}"`) && orNull(() => JSON.parse(line).data.count);
  return lines.reduce((sum, line) => sum + (Number(reported(line)) || 1), 0);
}

/** The segment that has to go so that the spool keeps its bound; null: none has to, or none can. */
function oldestTooMany(spool, bound, spared) {
  const found = Queue.allIn(spool).flatMap((queue) => queue.segments().map((name) => ({ queue, name })));
  const sizes = found.map(({ queue, name }) => orNull(() => fs.statSync(queue.path(name)).size) ?? 0);
  if (sizes.reduce((sum, size) => sum + size, 0) <= bound) return null;
  return found.find(({ queue, name }) => !spared.includes(queue.path(name))) ?? null;
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

/** The store as seen from here. */
class Store {
  tokenTrouble = ''; // why there is none, though a file is named

  constructor(url, token, tokenFile) {
    this.url = url.replace(/\/+$/, '');
    this.tokenFile = token ? null : tokenFile;
    this.token = token;
    this.renewToken();
  }

  /** Whether the token's file has another one than before. */
  renewToken() {
    if (!this.tokenFile) return false;
    const before = this.token;
    try {
      this.token = fs.readFileSync(this.tokenFile, 'utf8').trim() || before;
      this.tokenTrouble = this.token ? '' : `The token file ${this.tokenFile} is empty. `;
    } catch ({ code }) {
      this.tokenTrouble = `The token file ${this.tokenFile} cannot be read by uid ${process.getuid?.()}: ${code}. `;
    }
    return this.token !== before;
  }

  /** Post lines; what the answer means (`verdictOn`). Does not reject. */
  async post(lines) {
    try {
      const body = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
      return verdictOn(await this.#answer('POST', '/api/events', { body }), lines);
    } catch (error) {
      return { is: 'later', after: 0, detail: reasonOf(error) };
    }
  }

  /** The JSON of a GET that answered 200, or null. Does not reject. It keeps the program running until then. */
  async get(path) {
    try {
      const { status, text } = await this.#answer('GET', path, { within: ASK_MS, holds: true });
      return status === 200 ? JSON.parse(text) : null;
    } catch {
      return null;
    }
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

async function readAll(response) {
  let text = '';
  for await (const part of response.setEncoding('utf8')) {
    text += part;
    if (text.length > MAX_ANSWER) throw new Error('the answer is too long');
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
  const isToBeDivided = status === 413 && lines.length > 1;
  if (isToBeDivided || (isProblem && [400, 413, 422].includes(status))) return { is: 'bad', status, detail };
  if (status === 401 || status === 403) return { is: 'refused', status, detail };
  return { is: 'later', after: retryAfter(headers['retry-after']), detail };
}

/** It has to account for each line. */
function verdictOnTaken({ success, accepted, duplicates, rejected, rejectedTotal }, lines) {
  const count = lines.filter((line) => line.length).length;
  const isRejection = (one) => lines[one?.line - 1] && Number.isInteger(one.status);
  const isKnown = success === true && Array.isArray(rejected) && rejected.every(isRejection);
  const isWhole = isKnown && (rejectedTotal ?? rejected.length) === rejected.length;
  if (!isWhole || accepted + duplicates + rejected.length !== count) {
    return { is: 'later', after: 0, detail: 'it is not the store that answers' };
  }
  const late = rejected.find(({ status }) => status >= 500 || [408, 425, 429].includes(status));
  return late ? { is: 'later', after: 0, detail: `${late.status} ${late.detail}` } : { is: 'taken', rejected };
}

/** Milliseconds; the header has seconds or a date. */
function retryAfter(value) {
  if (!value) return 0;
  const wait = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Math.min(Math.max(wait || 0, 0), LONGEST_RETRY_AFTER_MS);
}

// ------------------------------------------------------------------------------------------------------------- channel

const complaints = new Set();

/** To whoever runs the program, once about each thing. */
function complain(about, text) {
  if (!complaints.has(about)) console.error(`hook_agent: ${text}`);
  complaints.add(about);
}

/** From this process to one store: its queue, those that it has taken over from processes that are gone, its sender. */
class Channel {
  #own = null;
  #taken = []; // queues that others left, oldest first: delivered before our own
  #dropped = 0; // events that the disk has not taken
  #sending = null; // the batch that is on its way
  #running = null;
  #woken = null;
  #failures = 0; // one after the other
  #tries = 0; // that have failed, ever
  #adoptedAt = -Infinity;
  #endPause = null;
  #gaveUpAt = null;

  constructor({ url, token, tokenFile, wantedSpool, owner = OWNER }) {
    this.store = new Store(url, token, tokenFile);
    this.wantedSpool = wantedSpool;
    this.owner = owner;
    this.spool = orNull(() => openSpool(wantedSpool));
    this.bound = Number(process.env.SESSION_SPOOL_BYTES) || SPOOL_BYTES;
    this.segmentBytes = Math.min(SEGMENT_BYTES, Math.ceil(this.bound / 8));
    this.isAnswering = true; // as far as is known
  }

  // ---- appending

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

  /** What a segment has no room for may have it in the next. Where somebody else has taken our queue, or removed it, the
   * line may be theirs or lost: it goes into a new one, too. Looked at afterwards, so that nothing can come between. */
  #write(line, session, isAgain = false) {
    this.spool ??= openSpool(this.wantedSpool);
    const own = (this.#own ??= Queue.create(this.spool, this.owner));
    const isBegun = own.isFullFor(line, this.segmentBytes);
    const failure = failureOf(() => (isBegun && own.begin(), own.append(line)));
    const isOurs = fs.existsSync(own.folder);
    if (failure && isOurs && isAgain) throw failure;
    if (!isOurs) this.#own = own.close();
    if (failure || !isOurs) this.#write(line, session, true);
    else if (isBegun) this.#makeRoom(session);
  }

  /** Keep the bound. What has to go is reported before it goes, but never what may be stored at this moment. */
  #makeRoom(session) {
    const spared = [this.#own.path(this.#own.segment), this.#sending?.queue.path(this.#sending.segment)];
    for (let old; (old = oldestTooMany(this.spool, this.bound - this.segmentBytes, spared)); ) {
      const { queue, name } = old;
      const count = countOf(orNull(() => queue.rest(name)) ?? '');
      if (count) this.#report(session, `${queue.family}-${Number.parseInt(name, 10)}`, count);
      if (orNull(() => (fs.unlinkSync(queue.path(name)), true)) === null) return;
    }
  }

  /** The same `name` gives the same eventId, so that a loss is not reported twice. */
  #report(session, name, count) {
    this.#own.append(lineOf('action', session, { eventId: `dropped-${name}`, type: LOSS, count }).line);
  }

  // ---- delivering

  /** See to it that what waits is delivered. */
  wake() { if (!this.#running) this.#woken ??= setImmediate(() => this.run()).unref(); }

  /** Deliver until nothing waits, however long that takes. Does not reject. */
  run() {
    this.#woken = null;
    this.#running ??= this.#deliver().catch(() => {
      this.#running = null;
      this.#tries += 1;
      setTimeout(() => this.wake(), LONGEST_PAUSE_MS).unref();
    });
    return this.#running;
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
        await this.#waitAfter(verdict);
        continue;
      }
      this.#failures = 0;
      const isOne = batch.lines.length === 1;
      if (verdict.is === 'taken' || isOne) this.#done(batch, verdict.rejected ?? [{ ...verdict, line: 1 }]);
      most = verdict.is === 'taken' ? Math.min(most * 2, BATCH_LINES) : Math.max(1, batch.lines.length >> 1);
    }
    this.#running = null; // at once: whatever is appended from here on needs another run
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

  #done({ queue, segment, end, lines }, rejected) {
    for (const { line, status, detail } of rejected) bury(this.spool, status, detail, lines[line - 1]);
    queue.advance(segment, end);
  }

  async #waitAfter({ is, status, after, detail }) {
    this.#own?.sync();
    this.#tries += 1;
    if (is === 'refused') await this.#waitForToken(status, detail);
    const bound = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#failures);
    // Those who failed together do not come again together.
    if (is !== 'refused') await this.#pause(after || Math.random() * bound, !after);
    this.#failures = Math.min(this.#failures + 1, 20);
    this.adopt();
  }

  async #waitForToken(status, detail) {
    if (this.store.renewToken()) return;
    const trouble = `the session store at ${this.store.url} refused the token (${status}: ${detail}). `;
    const remedy = `What is logged waits in ${this.spool}; set SESSION_TOKEN or SESSION_TOKEN_FILE.`;
    complain('the token', trouble + this.store.tokenTrouble + remedy);
    for (let waited = 0; waited < REFUSED_PAUSE_MS && !this.store.renewToken(); waited += TOKEN_LOOK_MS) {
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

  // ---- waiting for it

  /** True once all that was appended until now is delivered; false after so long, or (impatient) after a failure. */
  async flush(milliseconds, { isImpatient = false } = {}) {
    const [queue, end, tries, until] = [this.#own, this.#own?.end(), this.#tries, performance.now() + milliseconds];
    while (queue !== null && !queue.isPast(end)) {
      if (performance.now() >= until || (isImpatient && this.#tries !== tries)) return false;
      if (this.#tries === tries) this.#endPause?.();
      this.run();
      await pause(POLL_MS); // this does keep the program running
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
    this.#own?.close();
    if (this.#next(1) === null) {
      this.#own?.remove();
      return false;
    }
    for (const queue of [...this.#taken, ...(this.#own ? [this.#own] : [])]) queue.give(NOBODY);
    return true;
  }
}

const channels = new Map();

/** The one way from this process to a store. What a program does not give is as the environment says. */
function channelTo({ serviceUrl, token, tokenFile, spoolDir, owner } = {}) {
  const { SESSION_SERVICE_URL, SESSION_TOKEN, SESSION_TOKEN_FILE, SESSION_SPOOL_DIR } = process.env;
  const settings = {
    url: textOf(serviceUrl) || SESSION_SERVICE_URL || 'http://localhost:9000',
    token: textOf(token) || (tokenFile ? '' : SESSION_TOKEN) || null,
    tokenFile: textOf(tokenFile) || SESSION_TOKEN_FILE || null,
    wantedSpool: textOf(spoolDir) || SESSION_SPOOL_DIR || null,
    owner,
  };
  const key = JSON.stringify(settings);
  if (!channels.has(key)) channels.set(key, new Channel(settings));
  return channels.get(key);
}

// --------------------------------------------------------------------------------------------------------------- agent

/** What a call was given, as an object that is ours to change; anything else becomes its member `name`. */
function bodyOf(given, name) {
  const body = plain(given);
  if (isObject(body)) return body;
  return body === null ? {} : { [name]: body };
}

const CALLS = [
  'enter', 'logAction', 'logResponse', 'updateState', 'addGoal', 'updateGoal', 'spawnAgent', 'completeAgent',
  'finalizeSession', 'testConnection', 'resume', 'flush', 'close',
];

/**
 * One session, as its program sees it. `options`, each from the environment where it is not given: `sessionId`,
 * `serviceUrl`, `userId`, `token`, `tokenFile`, `parentSession`, `tags`, `spoolDir`; and `initial`, `metadata`.
 */
export class SessionHookAgent {
  #options;
  #is = null;
  #hasEntered = false;

  constructor(options = {}) {
    this.#options = isObject(options) ? options : { sessionId: options };
    for (const name of CALLS) this[name] = this[name].bind(this); // so that each can be handed on alone
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
      channel: channelTo(this.#options),
    };
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

  /** `{type, …}` */
  async logResponse(response) { return this.#log('response', bodyOf(response, 'value')); }

  /** Lay members over the state: objects merge, all else replaces. */
  async updateState(members) { return this.#log('state_updated', bodyOf(members, 'value')); }

  /** `{description, priority?, status?, id?, …}`; answers with the goal and its `id`. */
  async addGoal(given) {
    const goal = { priority: 'medium', status: 'pending', ...bodyOf(given, 'description') };
    goal.id = fitId(goal.id) || `goal-${newId()}`;
    const { eventId: _, timestamp: __, ...told } = goal;
    return { ...told, ...this.#log('goal_added', goal), goal: told };
  }

  /** `{status?, …}` */
  async updateGoal(goalId, changes) {
    return this.#log('goal_updated', { ...bodyOf(changes, 'status'), goalId: plain(goalId) });
  }

  /** `{type, task?, agentId?, parentAgentId?, subsession?}`; answers with the agent and its `agentId`. */
  async spawnAgent(given) {
    const agent = { timestamp: new Date().toISOString(), ...bodyOf(given, 'type') };
    agent.agentId = fitId(agent.agentId) || `agent-${newId()}`;
    const { eventId: _, timestamp: spawnedAt, ...told } = agent;
    const answer = this.#log('agent_spawned', agent);
    return { task: null, subsession: null, ...told, status: 'spawned', spawnedAt, ...answer };
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
    const isStatus = ['success', 'failed', 'cancelled'].includes(given);
    return this.#log('session_finalized', bodyOf(given, isStatus ? 'status' : 'outcome'));
  }

  /** Whether the store answers. */
  async testConnection() { return (await this.#self.channel.store.get('/health')) !== null; }

  /** All that is needed to go on where the session stopped, or null. */
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

function leave(channel) {
  orNull(() => channel.leave() && sendFrom(channel));
}

/** Have a process of its own deliver what is left, unless one is at it already, or this is one. */
function sendFrom({ spool, owner, store }) {
  const holder = orNull(() => fs.readFileSync(join(spool, SENDER_LOCK), 'latin1'));
  if (!IS_ITSELF || owner !== OWNER || (holder && isAlive(holder))) return;
  const { NODE_OPTIONS: _, ...env } = process.env; // they are the program's: it may have preloaded anything
  const settings = { SESSION_SERVICE_URL: store.url, SESSION_SPOOL_DIR: spool };
  if (store.tokenFile) Object.assign(settings, { SESSION_TOKEN: '', SESSION_TOKEN_FILE: store.tokenFile });
  else if (store.token) settings.SESSION_TOKEN = store.token;
  const options = { cwd: '/', detached: true, stdio: 'ignore', windowsHide: true, env: { ...env, ...settings } };
  spawn(process.execPath, [SELF, 'flush'], options).on('error', () => {}).unref();
}

/**
 * Deliver what waits, and leave when nothing does, however long that takes. One process at a time for each spool. A
 * program that ends gives its queue away before it looks for us, and we look for queues after we are gone: so none is
 * left between us.
 */
async function stay() {
  const channel = channelTo({ owner: `send-${OWNER}` });
  const lock = join(channel.spool, SENDER_LOCK);
  const hold = setInterval(() => {}, 1 << 30);
  while (Queue.allIn(channel.spool).some(({ isFree }) => isFree) && takeLock(lock)) {
    channel.adopt(0);
    await channel.run();
    orNull(() => fs.unlinkSync(lock));
  }
  clearInterval(hold);
}

function takeLock(path) {
  const holder = orNull(() => fs.readFileSync(path, 'latin1'));
  if (holder && isAlive(holder)) return false;
  orNull(() => fs.unlinkSync(path));
  return orNull(() => (fs.writeFileSync(path, OWNER, { flag: 'wx', mode: 0o600 }), true)) ?? false;
}

/** Whether this file is what was started, and not a part of it. */
const isStarted = () => IS_ITSELF && fs.realpathSync(process.argv[1]) === fs.realpathSync(SELF);

if (process.argv[2] === 'flush' && orNull(isStarted)) stay();
