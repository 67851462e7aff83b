#!/usr/bin/env node
/**
 * What a Node program tells the session store of what it does, without ever waiting for it.
 *
 * One file, Node 20 or newer, no dependency. In reading order:
 *
 *     plain values      whatever a program hands over, as JSON that the store can take
 *     redaction         what is taken out of it: keys, tokens, passwords
 *     events            ids, times, and what each kind of event may have
 *     owners            which process a part of the spool belongs to, and whether that is still there
 *     queues            where events wait on disk: appended first, deleted once they are acknowledged
 *     losses            what had to go at the spool's bound, and how the store hears of it
 *     store             HTTP, and what an answer means
 *     channel           one process's way from its queue to the store
 *     agent             the calls
 *     leaving           what becomes of the rest when the program ends
 *     commands          node hook_agent.mjs flush | status | test
 *
 *     import { logAction, finalizeSession } from './hook_agent.mjs';
 *     await logAction({ type: 'file_write', path: 'src/server.js', lines: 42 });
 *     await finalizeSession({ status: 'success' });
 *
 * No call throws, rejects, or waits for the network, but those that ask the store something: `resume`,
 * `testConnection`, `flush` and `close` wait a bounded time, and do not reject either.
 */

import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { homedir, hostname, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const SELF = fileURLToPath(import.meta.url);
/** False where a bundler has made this a part of another file, which must not be started as if it were this one. */
const IS_ITSELF = basename(SELF) === 'hook_agent.mjs';

const MAX_DEPTH = 64; // of a whole line: the event, its data, and what is inside
const MAX_DATA_BYTES = 1_000_000; // the store takes 1 MiB; it may write the same value a little longer than we do
const MAX_ITEMS = 500_000; // more do not fit into an event, however short they are
const CUTS = [262_144, 65_536, 16_384, 4_096, 1_024]; // characters that long texts are cut to until an event fits

const SEGMENT_BYTES = 1 << 20;
const SPOOL_BYTES = 64 << 20;
const DEAD_BYTES = 4 << 20; // of each of two files
const RING_BYTES = 8 << 20; // what is held in memory while the disk takes nothing

const BATCH_LINES = 500;
const BATCH_BYTES = 512 << 10;
const CONNECT_MS = 1_000;
const ANSWER_MS = 30_000;
const ASK_MS = 5_000;
const LEAVE_MS = 2_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 30_000;
const LONGEST_RETRY_AFTER_MS = 300_000;
const REFUSED_PAUSE_MS = 60_000;
const TOKEN_LOOK_MS = 1_000;
const ADOPT_MS = 5_000;
const MAX_ANSWER_BYTES = 8 << 20;

// ---------------------------------------------------------------------------------------------------------------------
// Plain values
// ---------------------------------------------------------------------------------------------------------------------

const IS_BIG = 2n ** 63n;

/** Why something failed, whatever was thrown. */
function reasonOf(error) {
  try {
    return String(error?.message ?? error);
  } catch {
    return 'unknown';
  }
}

/**
 * Any value as strings, finite numbers, 64-bit integers, booleans, null, arrays and objects without prototype.
 * `depth` is that of the value if it is a container, `above` are the containers around it.
 */
function plain(value, depth, above = []) {
  switch (typeof value) {
    case 'string':
      return value.toWellFormed();
    case 'boolean':
      return value;
    case 'number':
      return plainNumber(value);
    case 'bigint':
      return -IS_BIG <= value && value < IS_BIG ? value : String(value);
    case 'undefined':
      return null;
    case 'object':
      return value === null ? null : plainObject(value, depth, above);
    case 'function':
      return `[function ${value.name}]`.toWellFormed();
    default:
      return String(value).toWellFormed();
  }
}

/** JSON writes whole numbers below 1e21 with all their digits, so the store would see integers it cannot hold. */
function plainNumber(value) {
  if (!Number.isFinite(value)) return null;
  const isUnfit = Number.isInteger(value) && Math.abs(value) >= 2 ** 63 && Math.abs(value) < 1e21;
  return isUnfit ? String(value) : value;
}

function plainObject(value, depth, above) {
  if (above.includes(value)) return '[circular]';
  try {
    const shown = shownAs(value);
    if (shown === null || typeof shown !== 'object') return plain(shown, depth, above);
    if (depth > MAX_DEPTH) return '[nested too deep]';
    const around = [...above, value, shown];
    return Array.isArray(shown) ? plainArray(shown, depth, around) : plainMembers(shown, depth, around);
  } catch (error) {
    return `[unreadable: ${reasonOf(error)}]`.toWellFormed();
  }
}

function plainArray(items, depth, above) {
  const most = Math.min(items.length, MAX_ITEMS);
  const kept = Array.from({ length: most }, (_, index) => plain(items[index], depth + 1, above));
  if (items.length > most) kept.push(`[${items.length - most} more]`);
  return kept;
}

function plainMembers(members, depth, above) {
  const kept = Object.create(null); // so that a member named __proto__ is only a member
  for (const name of Object.keys(members)) {
    const member = readMember(members, name);
    if (member !== undefined) kept[name.toWellFormed()] = plain(member, depth + 1, above);
  }
  return kept;
}

function readMember(members, name) {
  try {
    return members[name];
  } catch (error) {
    return `[unreadable: ${reasonOf(error)}]`;
  }
}

/** What stands for an object in JSON: as JSON.stringify has it, and where that would show nothing, its content. */
function shownAs(value) {
  if (value instanceof ArrayBuffer) return Buffer.from(value).toString('base64');
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64');
  if (typeof value.toJSON === 'function') return value.toJSON();
  if (value instanceof Error) return { name: value.name, message: value.message, stack: value.stack, ...value };
  if (value instanceof Map) return Object.fromEntries([...value].map(([name, member]) => [String(name), member]));
  if (value instanceof Set) return [...value];
  if (ArrayBuffer.isView(value)) return Array.from(value);
  if (value instanceof RegExp) return String(value);
  if (value instanceof String || value instanceof Number || value instanceof Boolean) return value.valueOf();
  return value;
}

/** The JSON text of a plain value; JSON.stringify would not write a bigint. */
function jsonOf(value) {
  if (typeof value === 'bigint') return String(value);
  if (Array.isArray(value)) return `[${value.map(jsonOf).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.keys(value)
    .map((name) => `${JSON.stringify(name)}:${jsonOf(value[name])}`)
    .join(',')}}`;
}

/** The JSON text of an event's data without secrets; its longest texts are cut until the store can take it. */
function fitting(given) {
  const data = redaction()?.data(given) ?? given;
  const text = jsonOf(data);
  if (isFitting(text)) return text;
  const truncated = { bytes: Buffer.byteLength(text), sha256: createHash('sha256').update(text).digest('hex') };
  for (const length of CUTS) {
    const shorter = jsonOf({ ...cut(data, length), truncated });
    if (isFitting(shorter)) return shorter;
  }
  return jsonOf({ ...shortMembers(data), text: text.slice(0, CUTS[1]).toWellFormed(), truncated });
}

function isFitting(text) {
  return text.length * 3 <= MAX_DATA_BYTES || Buffer.byteLength(text) <= MAX_DATA_BYTES;
}

function cut(value, length) {
  if (typeof value === 'string') return value.length > length ? `${value.slice(0, length).toWellFormed()}…` : value;
  if (Array.isArray(value)) return value.map((item) => cut(item, length));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).map((name) => [name, cut(value[name], length)]));
}

function shortMembers(data) {
  const isShort = (name) => name.length <= 256 && jsonOf(data[name]).length <= 256;
  const names = Object.keys(data).filter(isShort).slice(0, 100);
  return Object.fromEntries(names.map((name) => [name, data[name]]));
}

// ---------------------------------------------------------------------------------------------------------------------
// Redaction
// ---------------------------------------------------------------------------------------------------------------------

// The table of hook_agent.py, to the letter; what its patterns may be is said there.

/** A pattern for `text` at the beginning of a word; in quoted JSON a word may be preceded by \n, \r or \t. */
function begin(text, before = 'A-Za-z0-9_') {
  return String.raw`${text}(?:(?<![${before}]${text})|(?<=\\[nrt]${text}))`;
}

function anyCase(text) {
  return text.replace(/[a-z]/g, (letter) => `[${letter.toUpperCase()}${letter}]`);
}

const PEM_ESCAPED = String.raw`(?:[ \t\r\n]|\\[rn])`;
const PEM_HEADERS = String.raw`(?:[A-Za-z]{3,9}(?:-[A-Za-z]{4})?: [^\r\n\\]{0,80}${PEM_ESCAPED}{1,8}){0,3}`;
const PASSWORD_WORD = `${anyCase('pass')}(?:${anyCase('word')}|${anyCase('wd')}|${anyCase('phrase')})`;
const SECRET_WORD =
  `(?<![A-Za-z])(?:(?:${anyCase('access')}|${anyCase('auth')}|${anyCase('refresh')}|${anyCase('session')}|` +
  `${anyCase('bearer')}|${anyCase('api')})[_-]?${anyCase('token')}|${anyCase('token')}|` +
  `(?:${anyCase('client')}[_-]?)?${anyCase('secret')}|(?:${anyCase('api')}|${anyCase('secret')}|` +
  `(?:${anyCase('secret')}[_-]?)?${anyCase('access')}|${anyCase('private')})[_-]?${anyCase('key')})`;
const LOUD_WORD = '(?<![a-z])(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|(?:API|SECRET|ACCESS|PRIVATE)_?KEY)';
const ASSIGNED = String.raw`\\{0,3}["']?[ \t]{0,4}(?:=>|:=|[:=])[ \t]{0,4}\\{0,3}["']?`;
const UNQUOTED = 'A-Za-z0-9_/+~!@#%^*-';
const QUOTED = 'A-Za-z0-9_/+~!@#%^*.:;,?&=$-';

function having(characters) {
  return `(?=[${QUOTED}]{0,100}[${characters}])`;
}

function valueOf(shortest, needed = '') {
  return (
    String.raw`(?:(?<=["'])(?=([${QUOTED}]{${shortest},}))${needed}\2(?=\\{0,3}["'])|` +
    String.raw`(?=([${UNQUOTED}]{${shortest},}))${needed}\3={0,2}(?!\.?[=(\[{$${UNQUOTED}]))`
  );
}

const BLANK = String.raw`(?:[ \t\r\n]|\\[nrt]){1,8}`;
const LABEL = '[A-Za-z0-9-]{1,63}';
const HOST = String.raw`(?:localhost|${LABEL}(?:\.${LABEL}){1,8})`;
const NO_PLACEHOLDER = String.raw`(?![$%*<{\[])`;
const BASE64_AUTH =
  `${having('0-9=')}${having('A-Z')}(?:[A-Za-z0-9+/]{4}){3,2000}(?:[A-Za-z0-9+/]{2,3}={1,2})?`;

/** Names and the sources of their patterns. */
export const SECRETS = [
  ['private-key', `-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----${PEM_ESCAPED}{0,8}${PEM_HEADERS}` +
    String.raw`[A-Za-z0-9+/=]{32}[A-Za-z0-9+/= \t\r\n\\]*(?:-----END [A-Z0-9 ]{0,50}-----)?`],
  ['aws', `${begin('A[KS]IA')}[A-Z0-9]{16}(?![A-Za-z0-9])`],
  ['github', `${begin('gh[oprsu]_')}[A-Za-z0-9_]{20,}${String.raw`(?:\.[A-Za-z0-9_-]{10,}){0,2}`}`],
  ['github', `${begin('github_pat_')}[A-Za-z0-9_]{20,}`],
  ['gitlab', `${begin('gl')}(?:pat|dt|rt|cbt|ptt)-${String.raw`[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?`}`],
  ['anthropic', `${begin('sk-ant-')}[A-Za-z0-9_-]{16,}`],
  ['openai', `${begin('sk-')}(?:(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_-]{20,}|` +
    '(?=[A-Za-z0-9_]{0,60}[0-9])[A-Za-z0-9_]{20}[A-Za-z0-9_-]*)'],
  ['slack', `${begin('xox[abeoprs]-')}[A-Za-z0-9-]{10,}`],
  ['slack', `${begin('xapp-')}[A-Za-z0-9-]{10,}`],
  ['slack', String.raw`(hooks\.slack\.com/services/)[A-Za-z0-9/_+-]{20,}`],
  ['google', `${begin('AIza')}[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])`],
  ['google', `${begin('GOCSPX-')}[A-Za-z0-9_-]{20,}`],
  ['stripe', `${begin('[rs]k_(?:live|test)_')}[A-Za-z0-9]{16,}`],
  ['webhook', `${begin('whsec_')}[A-Za-z0-9+/]{24,}={0,2}`],
  ['npm', `${begin('npm_')}[A-Za-z0-9]{36,}`],
  ['pypi', `${begin('pypi-AgE')}[A-Za-z0-9_-]{30,}`],
  ['huggingface', `${begin('hf_')}[A-Za-z0-9]{30,}`],
  ['session-store', `${begin('sst_')}[A-Za-z0-9_-]{32,}`],
  ['session-store', String.raw`(session_store(?:${ASSIGNED}|[ \t]))[0-9a-f]{64}(?![0-9A-Za-z])`],
  ['sendgrid', begin('SG') + String.raw`\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{40,}`],
  ['digitalocean', `${begin('do[opr]_v1_')}[a-f0-9]{64}`],
  ['vault', begin('hv[bsr]') + String.raw`\.[A-Za-z0-9_-]{24,}`],
  ['shopify', `${begin('shp(?:at|ca|pa|ss)_')}[A-Fa-f0-9]{32}`],
  ['age', 'AGE-SECRET-KEY-1[A-Z0-9]{50,}'],
  ['sentry', `${begin('sntry[su]_')}[A-Za-z0-9+/_-]{40,}(?:==?_[A-Za-z0-9+/_-]{20,})?`],
  ['telegram', '((?<=[0-9]{8}):)AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])'],
  ['discord', '(/api/webhooks/[0-9]{15,22}/)[A-Za-z0-9_-]{60,}'],
  ['azure', '((?:Account|SharedAccess)Key=)[A-Za-z0-9+/]{40,}={0,2}'],
  ['kubeconfig', `(client-key-data${ASSIGNED})[A-Za-z0-9+/]{40,}={0,2}`],
  ['docker', String.raw`((?<=["'])auth\\{0,3}["'][ \t]{0,4}:[ \t]{0,4}\\{0,3}["'])${BASE64_AUTH}(?=\\{0,3}["'])`],
  ['netrc', String.raw`(${begin('machine')}${BLANK}${HOST}${BLANK}login${BLANK}[^ \t\r\n"'\\]{1,100}${BLANK}` +
    String.raw`password${BLANK})${NO_PLACEHOLDER}[^ \t\r\n"'\\]{1,200}`],
  ['curl', String.raw`(${begin('curl')}(?: (?!-u|--user)[^ \r\n|;&]{0,100}){0,12} (?:-u ?|--user[ =])` +
    String.raw`["']?[^ :"'\[\r\n\\]{1,100}:)${NO_PLACEHOLDER}[^ "'\r\n\\]{1,200}`],
  ['jwt', begin('eyJ', 'A-Za-z0-9_-') + String.raw`[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}`],
  ['authorization', `(${anyCase('authorization')}${ASSIGNED}(?:${anyCase('bearer')}|${anyCase('basic')}|` +
    `${anyCase('token')}) {1,4})[A-Za-z0-9._~+/-]{6,}={0,2}`],
  ['bearer', `(${anyCase('bearer')} {1,4})(?=[A-Za-z0-9._~+/-]{0,100}[0-9])[A-Za-z0-9._~+/-]{16,}={0,2}`],
  ['url', String.raw`(://[^/@:\[ "'<>\t\r\n\\]{0,100}:)${NO_PLACEHOLDER}[^/@ "'<>\t\r\n\\]{1,200}(?=@)`],
  ['password', `(${PASSWORD_WORD}${ASSIGNED})${valueOf(6, having('0-9'))}`],
  ['secret', `(${SECRET_WORD}${ASSIGNED})${valueOf(12, having('0-9') + having('A-Za-z'))}`],
  ['secret', String.raw`(${LOUD_WORD}=\\{0,3}["']?)` + valueOf(6)],
];

const PASSWORD_NAMES = ['password', 'passwd', 'passphrase'];
const SECRET_NAMES = [
  'secret', 'clientsecret', 'apikey', 'xapikey', 'apitoken', 'accesstoken', 'refreshtoken', 'authtoken',
  'sessiontoken', 'bearertoken', 'secretkey', 'accesskey', 'secretaccesskey', 'privatekey',
];
const AUTHORIZATION_NAMES = ['authorization', 'proxyauthorization'];
const LOUD_NAME = /^[^a-z]*_(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_KEY|SECRET_KEY|ACCESS_KEY)$/;
const AUTH = new RegExp(`^(?:${BASE64_AUTH})$`);
const IDS = /(?:Id|_id)$|^(?:id|parentSession|subsession|timestamp|type|hook_event_name)$/;

/** What is redacted of the text of a member with this name; empty: nothing. */
function secretByName(path, text) {
  if (/^[$<{%*[]/.test(text)) return '';
  const name = path.slice(path.lastIndexOf('.') + 1);
  const plainName = name.replace(/[_-]/g, '').toLowerCase();
  if (PASSWORD_NAMES.includes(plainName)) return text && 'password';
  if (AUTHORIZATION_NAMES.includes(plainName)) return text && 'authorization';
  if (!/^\s*\S+\s*$/.test(text)) return '';
  if (plainName === 'auth') return text.length >= 12 && AUTH.test(text) ? 'docker' : '';
  if (plainName === 'sessionstore') return text.length === 64 ? 'session-store' : '';
  if (plainName === 'token') return text.length >= 12 && /[0-9]/.test(text) ? 'secret' : '';
  return (LOUD_NAME.test(name) || SECRET_NAMES.includes(plainName)) && text.length >= 6 ? 'secret' : '';
}

/** Takes secrets out of data: those of the formats above, and what matches `own`, pairs of a name and a pattern. */
export class Redaction {
  #patterns;

  constructor(own = []) {
    const known = SECRETS.map(([name, source]) => [name, new RegExp(source, 'g'), keeps(source)]);
    this.#patterns = [...known, ...own.map(([name, source]) => [name, ownPattern(source), false])];
  }

  /** The data of an event, without secrets in its texts. Names of members stay, and so do the ids beside them. */
  data(data) {
    const redacted = Object.create(null);
    for (const name of Object.keys(data)) {
      redacted[name] = IDS.test(name) ? data[name] : this.#value(data[name], name);
    }
    return redacted;
  }

  #value(value, name) {
    if (typeof value === 'string') return this.#member(value, name);
    if (Array.isArray(value)) return value.map((part) => this.#value(part, ''));
    if (value === null || typeof value !== 'object') return value;
    const redacted = Object.create(null);
    for (const name of Object.keys(value)) redacted[name] = this.#value(value[name], name);
    return redacted;
  }

  #member(text, name) {
    const redacted = this.text(text);
    const secret = name && secretByName(name, redacted);
    if (!secret || redacted !== text) return redacted;
    const [scheme, rest] = text.split(/ (.*)/s);
    const keepsScheme = secret === 'authorization' && rest && /^[A-Za-z]+$/.test(scheme);
    return keepsScheme ? `${scheme} [redacted:${secret}]` : `[redacted:${secret}]`;
  }

  text(text) {
    for (const [name, pattern, hasKept] of this.#patterns) {
      text = text.replace(pattern, (_, kept) => `${hasKept ? kept : ''}[redacted:${name}]`);
    }
    return text;
  }
}

/** Whether a pattern has parentheses whose content is kept. */
function keeps(source) {
  return new RegExp(`${source}|`).exec('').length > 1;
}

function ownPattern(source) {
  const pattern = new RegExp(source, 'g');
  if (pattern.test('') || pattern.test('[redacted:custom]')) throw new Error(`${source} matches what holds no secret`);
  return pattern;
}

/** What `on`, `off` (null) or the path of a file with further patterns stands for, as in hook_agent.py. Throws. */
export function redactionOf(setting) {
  if (setting === '' || setting === 'on') return new Redaction();
  if (setting === 'off') return null;
  const lines = fs.readFileSync(setting, 'utf8').split(/\r?\n/);
  const said = lines.filter((line) => line.trim() && !line.startsWith('#'));
  return new Redaction(said.map((line) => namedPattern(line.trim())));
}

function namedPattern(line) {
  return /^([A-Za-z0-9-]{1,32}): (.*)$/.exec(line)?.slice(1) ?? ['custom', line];
}

let chosen;

/** As SESSION_REDACT says. Where it cannot be used that is said once, and what is redacted anyway is. */
function redaction() {
  if (chosen !== undefined) return chosen;
  try {
    chosen = redactionOf(process.env.SESSION_REDACT ?? '');
  } catch (error) {
    console.error(`hook_agent: SESSION_REDACT=${process.env.SESSION_REDACT}: ${reasonOf(error)}`);
    chosen = new Redaction();
  }
  return chosen;
}

// ---------------------------------------------------------------------------------------------------------------------
// Events
// ---------------------------------------------------------------------------------------------------------------------

const TIME = /^(\d{4})-(\d\d)-(\d\d)[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

const isText = (value) => typeof value === 'string';
const isTextOrNull = (value) => value === null || isText(value);
const isId = (value) => isText(value) && /^[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,127}$/.test(value);
const isIdOrNull = (value) => value === null || isId(value);
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isTags = (value) => Array.isArray(value) && value.every((tag) => isText(tag) && [...tag].length <= 256);
const isOneOf = (...words) => (value) => words.includes(value);
const isExitCode = (value) => value === null || typeof value === 'bigint' || Number.isSafeInteger(value);
const isUser = (value) => isText(value) && value !== '' && fitUser(value) === value;

function isTime(value) {
  const [, year, month, day] = (isText(value) && TIME.exec(value)) || [];
  if (!day || Number.isNaN(Date.parse(value.toUpperCase().replace(' ', 'T')))) return false;
  return new Date(Date.UTC(year, month - 1, day)).getUTCDate() === Number(day); // 30 February is not the 2nd of March
}

/** What the store would refuse the whole event for, were it anything else. */
const RULES = {
  session_created: { userId: isUser, initial: isObject, parentSession: isIdOrNull, tags: isTags, metadata: isObject },
  session_finalized: { status: isOneOf('success', 'failed', 'cancelled'), exitCode: isExitCode },
  action: { type: isText, agentId: isIdOrNull },
  response: { type: isText, agentId: isIdOrNull },
  goal_added: { description: isText, id: isIdOrNull, priority: isTextOrNull, status: isText },
  goal_updated: { description: isText, priority: isTextOrNull, status: isText },
  agent_spawned: { type: isText, agentId: isIdOrNull, parentAgentId: isIdOrNull, subsession: isIdOrNull },
  agent_completed: { status: isOneOf('completed', 'failed', 'cancelled') },
};
const OF_ANY = { eventId: isId, timestamp: isTime };

/** Members that break a rule, moved into one named `invalid`, so that the event is taken and nothing of it is lost. */
function settled(type, data) {
  if (!RULES[type]) return data;
  const aside = Object.create(null);
  for (const [name, isRight] of Object.entries({ ...OF_ANY, ...RULES[type] })) {
    if (name in data && !isRight(data[name])) {
      aside[name] = data[name];
      delete data[name];
    }
  }
  if (Object.keys(aside).length) data[unusedName(data, 'invalid')] = aside;
  return data;
}

function unusedName(data, name) {
  return name in data ? unusedName(data, `_${name}`) : name;
}

const idPrefix = randomBytes(6).toString('hex');
let idNumber = 0;

function newId() {
  idNumber += 1;
  return `${idPrefix}-${idNumber.toString(36)}`;
}

/**
 * One line of a batch, with its newline, and the eventId in it. The session comes first, so that a reader need not
 * parse the rest to know it. A state is the caller's own document: an eventId or timestamp in it is content.
 */
function lineOf(type, sessionId, userId, data) {
  const { eventId = newId(), timestamp = new Date().toISOString() } = type === 'state_updated' ? {} : data;
  if (type !== 'state_updated') {
    delete data.eventId;
    delete data.timestamp;
  }
  const head = { sessionId, ...(userId && { userId }), eventId, timestamp, type };
  return { eventId, line: `${jsonOf(head).slice(0, -1)},"data":${fitting(data)}}\n` };
}

/** A setting as text; empty where it is none. */
function textOf(value) {
  return ['string', 'number', 'bigint'].includes(typeof value) || value instanceof URL ? String(value) : '';
}

/** An id that the store takes, as near to the given one as can be; empty where nothing of it can be kept. */
function fitId(value) {
  return textOf(value)
    .replace(/[^A-Za-z0-9._-]/g, '-')
    .replace(/\.{2,}/g, '.')
    .replace(/^[._-]+/, '')
    .slice(0, 128);
}

function newSessionId() {
  return `session-${Date.now()}-${randomBytes(4).toString('hex')}`;
}

function fitUser(value) {
  return [...textOf(value).toWellFormed()]
    .filter((letter) => !/[\x00-\x1f\x7f-\x9f]/.test(letter))
    .slice(0, 256)
    .join('');
}

// ---------------------------------------------------------------------------------------------------------------------
// Owners
// ---------------------------------------------------------------------------------------------------------------------

function orNull(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

/** As `orNull`, but only for what is not there: what is there and cannot be read must not be taken for nothing. */
function ifThere(work) {
  try {
    return work();
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

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
  try {
    return process.kill(Number(pid), 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Queues
// ---------------------------------------------------------------------------------------------------------------------

/**
 * In the spool folder each process has a queue of its own, a folder `node-TIME-RANDOM.OWNER` of segments
 * `00000001.ndjson`, … and `position.json`, before which everything is acknowledged. Renaming it makes it another
 * process's: one only can. So two senders never divide a queue; were both to send all of it, in its order, each event
 * would still be stored once, and after the one before it.
 */
const QUEUE = /^(node-\d{13}-[0-9a-f]{8})\.(free|(send-)?(\d+-\d+-[0-9a-f]{8}))$/;
const SEGMENT = /^\d{8}\.ndjson$/;
const SENDER_LOCK = 'node-sender.lock';
const TROUBLE = 'node-trouble';
const DEAD = ['dead/node-raised.ndjson', 'dead/node-older.ndjson', 'dead/node.ndjson'];
const { O_RDONLY, O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW = 0 } = fs.constants;
const APPENDING = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW;

/** The first of these folders that can be had; null: none. */
function openSpool(wanted) {
  const owned = join(tmpdir(), `session-store-${process.getuid?.() ?? 'user'}`);
  const ways = [
    () => madeFolder(resolve(wanted ?? defaultSpool())),
    () => ownFolder(owned) && madeFolder(join(owned, 'spool')),
  ];
  for (const way of ways) {
    const folder = orNull(way);
    if (folder) return folder;
  }
  return null;
}

function defaultSpool() {
  return join(process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'session-store', 'spool');
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
  if (!found.isDirectory() || found.uid !== (process.getuid?.() ?? found.uid)) return null;
  fs.chmodSync(folder, 0o700);
  return folder;
}

/** The queues in a spool folder, oldest first: `{folder, family, owner, isSenders}`. */
function queuesIn(spool) {
  const names = orNull(() => fs.readdirSync(spool)) ?? [];
  const matches = names.sort().map((name) => QUEUE.exec(name));
  return matches.filter(Boolean).map(([name, family, owner, isSenders, process]) => ({
    folder: join(spool, name),
    family,
    owner: process ?? owner,
    isSenders: Boolean(isSenders),
  }));
}

function isFree({ owner, isSenders }) {
  return owner === NOBODY || isSenders || !isAlive(owner);
}

class Queue {
  #descriptor = null;
  #inode = 0;
  #size = 0;

  constructor(folder) {
    this.folder = folder;
    this.family = QUEUE.exec(basename(folder))[1];
    this.segment = ''; // the one that is appended to
    const { segment, offset } = orNull(() => JSON.parse(fs.readFileSync(this.path('position.json'), 'utf8'))) ?? {};
    this.place = SEGMENT.test(segment) && Number.isInteger(offset) ? { segment, offset } : { segment: '', offset: 0 };
  }

  static create(spool, owner) {
    const folder = join(spool, `node-${Date.now()}-${randomBytes(4).toString('hex')}.${owner}`);
    fs.mkdirSync(folder, { mode: 0o700 });
    return new Queue(folder);
  }

  path(name) {
    return join(this.folder, name);
  }

  segments() {
    const names = ifThere(() => fs.readdirSync(this.folder)) ?? [];
    return names.filter((name) => SEGMENT.test(name)).sort();
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
    this.#inode = fs.fstatSync(this.#descriptor).ino;
    this.#size = 0;
  }

  /**
   * False where somebody else has taken the queue, or removed it: then the line may be theirs or lost, and belongs
   * into a new queue as well. Looked at after the write, so that nothing can come between. Raises what writing raises.
   */
  append(line) {
    const bytes = Buffer.from(line);
    try {
      const written = fs.writeSync(this.#descriptor, bytes);
      if (written < bytes.length) throw new Error('the disk is full');
    } catch (error) {
      orNull(() => fs.ftruncateSync(this.#descriptor, this.#size)); // no half line before the next one
      throw error;
    }
    this.#size += bytes.length;
    return orNull(() => fs.statSync(this.path(this.segment)).ino) === this.#inode;
  }

  /** Have on disk what cannot be delivered yet; in the background, for it may take long. */
  sync() {
    if (this.#descriptor !== null) fs.fdatasync(this.#descriptor, () => {});
  }

  close() {
    if (this.#descriptor !== null) orNull(() => fs.closeSync(this.#descriptor));
    this.#descriptor = null;
  }

  // ---- delivering

  /** The next lines that are not acknowledged, or null. Removes segments before them. Raises what reading raises. */
  next(most) {
    const names = this.segments();
    for (const name of names) {
      const batch = name < this.place.segment ? null : this.read(name, most);
      if (batch) return batch;
      if (this.#descriptor !== null && name === this.segment) return null;
      orNull(() => fs.unlinkSync(this.path(name)));
    }
    return null;
  }

  /** At most so many lines, from the position on. A torn last line is taken for one: the store will say what it is. */
  read(name, most) {
    const start = name === this.place.segment ? this.place.offset : 0;
    const bytes = ifThere(() => bytesOf(this.path(name), start)) ?? Buffer.alloc(0);
    const lines = [];
    let end = 0;
    while (end < bytes.length && lines.length < most) {
      const newline = bytes.indexOf(10, end);
      const next = newline < 0 ? bytes.length : newline + 1;
      if (lines.length && next > BATCH_BYTES) break;
      lines.push(bytes.subarray(end, newline < 0 ? next : newline));
      end = next;
    }
    return end ? { queue: this, segment: name, end: start + end, lines } : null;
  }

  /** Everything before this place is acknowledged. Not fsynced: an older position only means sending again. */
  advance(segment, offset) {
    this.place = { segment, offset };
    orNull(() => {
      fs.writeFileSync(this.path('position.tmp'), JSON.stringify(this.place), { mode: 0o600 });
      fs.renameSync(this.path('position.tmp'), this.path('position.json'));
    });
  }

  isPast({ segment, offset }) {
    return this.place.segment > segment || (this.place.segment === segment && this.place.offset >= offset);
  }

  end() {
    return { segment: this.segment, offset: this.#size };
  }

  // ---- owning

  /** Make it a process's own. False: somebody else was first. */
  give(owner) {
    const folder = join(dirname(this.folder), `${this.family}.${owner}`);
    if (folder === this.folder) return true;
    if (orNull(() => (fs.renameSync(this.folder, folder), true)) === null) return false;
    this.folder = folder;
    return true;
  }

  remove() {
    this.close();
    const names = ['position.tmp', 'position.json', ...this.segments()];
    for (const name of names) orNull(() => fs.unlinkSync(this.path(name)));
    orNull(() => fs.rmdirSync(this.folder));
  }
}

function bytesOf(path, start) {
  const descriptor = fs.openSync(path, O_RDONLY | O_NOFOLLOW);
  try {
    const size = Math.max(0, Math.min(fs.fstatSync(descriptor).size - start, 4 * SEGMENT_BYTES));
    const bytes = Buffer.alloc(size);
    return bytes.subarray(0, fs.readSync(descriptor, bytes, 0, size, start));
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Keep what the store has refused for good, with the reason; the older of two files goes at the bound. */
function bury(spool, status, reason, bytes) {
  const text = bytes.toString();
  const event = orNull(() => (JSON.parse(text), text)) ?? JSON.stringify(text);
  const head = JSON.stringify({ at: new Date().toISOString(), status, reason });
  orNull(() => {
    const folder = madeFolder(join(spool, 'dead'));
    const path = join(folder, 'node.ndjson');
    const size = orNull(() => fs.statSync(path).size) ?? 0;
    if (size > DEAD_BYTES) fs.renameSync(path, join(folder, 'node-older.ndjson'));
    fs.writeFileSync(path, `${head.slice(0, -1)},"event":${event}}\n`, { mode: 0o600, flag: APPENDING });
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Losses
// ---------------------------------------------------------------------------------------------------------------------

const LOSS = 'events_dropped';
const LOSS_ID = 'dropped-';

/** How many events of which session had to go, and from when to when they were. */
class Losses {
  #sessions = new Map();

  get any() {
    return this.#sessions.size > 0;
  }

  /** One line that goes. Where that is a report of losses, what it reports is lost with it. */
  note(line) {
    const event = orNull(() => JSON.parse(line));
    if (!isObject(event)) return;
    const isReport = event.type === 'action' && event.data?.type === LOSS && String(event.eventId).startsWith(LOSS_ID);
    const { count, from, to } = isReport ? event.data : { count: 1, from: event.timestamp, to: event.timestamp };
    const known = this.#sessions.get(event.sessionId) ?? { userId: event.userId, count: 0, from, to };
    known.count += count;
    known.from = from < known.from ? from : known.from;
    known.to = to > known.to ? to : known.to;
    this.#sessions.set(event.sessionId, known);
  }

  /** One event a session. The same `name` gives the same eventIds, so that a loss is not reported twice. */
  lines(name) {
    return [...this.#sessions].map(([sessionId, { userId, count, from, to }]) => {
      const eventId = LOSS_ID + createHash('sha256').update(`${name} ${sessionId}`).digest('hex').slice(0, 32);
      return lineOf('action', sessionId, userId, { eventId, timestamp: to, type: LOSS, count, from, to }).line;
    });
  }
}

/** The segment that has to go so that the spool keeps its bound; null: none has to, or none can. */
function oldestTooMany(spool, bound, isSpared) {
  const found = queuesIn(spool).flatMap(({ folder }) => {
    const queue = new Queue(folder);
    const sizeOf = (name) => orNull(() => fs.statSync(queue.path(name)).size) ?? 0;
    return queue.segments().map((name) => ({ queue, name, bytes: sizeOf(name) }));
  });
  const total = found.reduce((sum, { bytes }) => sum + bytes, 0);
  return total > bound ? (found.find(({ queue, name }) => !isSpared(queue.path(name))) ?? null) : null;
}

// ---------------------------------------------------------------------------------------------------------------------
// Store
// ---------------------------------------------------------------------------------------------------------------------

/** The store as seen from here. */
class Store {
  #agent = null;

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
    this.token = orNull(() => fs.readFileSync(this.tokenFile, 'utf8').trim()) || before;
    return this.token !== before;
  }

  /** Why there is none, though a file is named; empty where there is one, or none is wanted. */
  tokenTrouble() {
    if (!this.tokenFile) return '';
    try {
      return fs.readFileSync(this.tokenFile, 'utf8').trim() ? '' : `The token file ${this.tokenFile} is empty. `;
    } catch (error) {
      return `The token file ${this.tokenFile} cannot be read by uid ${process.getuid?.()}: ` +
        `${error.code}${ownerOf(this.tokenFile)}. `;
    }
  }

  /** Post lines; what the answer means (`verdictOn`). Does not reject. */
  async post(lines) {
    const body = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
    try {
      return verdictOn(await this.#again('POST', '/api/events', { body }), lines);
    } catch (error) {
      return { is: 'later', after: 0, detail: reasonOf(error) };
    }
  }

  /** The JSON of a GET that answered 200, or null. Does not reject. It keeps the program running until then. */
  async get(path) {
    try {
      const { status, text } = await this.#again('GET', path, { within: ASK_MS, holds: true });
      return status === 200 ? JSON.parse(text) : null;
    } catch {
      return null;
    }
  }

  /** A server may close a connection just when it is used again: that is no failure of the server. */
  async #again(method, path, options) {
    try {
      return await this.#request(method, path, options);
    } catch (error) {
      if (!error.isStale) throw error;
      return this.#request(method, path, options);
    }
  }

  async #request(method, path, { body = null, within = ANSWER_MS, holds = false }) {
    const url = new URL(this.url + path);
    if (!['http:', 'https:'].includes(url.protocol)) throw new Error(`${url.protocol} is not spoken here`);
    const { request, Agent } = await import(`node:${url.protocol.slice(0, -1)}`); // late: not every program sends
    this.#agent ??= new Agent({ keepAlive: true, noDelay: true }); // of our own: it asks no proxy
    const headers = {
      ...(this.token && { authorization: `Bearer ${this.token}` }),
      ...(body && { 'content-type': 'application/x-ndjson', 'content-length': body.length }),
    };
    return answerTo(request(url, { method, headers, agent: this.#agent }), body, within, holds);
  }

  close() {
    this.#agent?.destroy();
    this.#agent = null;
  }
}

/** Of a file that is there, and what to do if another user should read it. */
function ownerOf(path) {
  const found = orNull(() => fs.statSync(path));
  if (found === null) return '';
  const mode = (found.mode & 0o7777).toString(8).padStart(4, '0');
  const mine = `chown ${process.getuid?.()} ${path}`;
  return `; it belongs to uid ${found.uid}, mode ${mode} (${mine}, or let its group read it)`;
}

/** Send a request; `{status, headers, text}`. Rejects if that has not come `within` milliseconds. */
function answerTo(sent, body, within, holds) {
  return new Promise((resolve, reject) => {
    const timers = [setTimeout(() => sent.destroy(new Error('no answer in time')), within)];
    const connectedIn = setTimeout(() => sent.destroy(new Error('no connection in time')), CONNECT_MS);
    timers.push(connectedIn);
    if (!holds) timers.forEach((timer) => timer.unref());
    let isAnswered = false; // then it is the body's end that counts
    sent.on('socket', (socket) => {
      if (!holds) socket.unref();
      if (!socket.connecting) clearTimeout(connectedIn);
      else socket.once('encrypted' in socket ? 'secureConnect' : 'connect', () => clearTimeout(connectedIn));
    });
    sent.on('response', (response) => {
      isAnswered = true;
      const { statusCode: status, headers } = response;
      readAll(response).then((text) => resolve({ status, headers, text }), reject);
    });
    sent.on('error', (error) => {
      error.isStale = sent.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code);
      reject(error);
    });
    sent.on('close', () => {
      timers.forEach(clearTimeout);
      if (!isAnswered) reject(new Error('the connection ended before the answer'));
    });
    sent.end(body);
  });
}

async function readAll(response) {
  const parts = [];
  let size = 0;
  for await (const part of response) {
    size += part.length;
    if (size > MAX_ANSWER_BYTES) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/**
 * What an answer to a batch means: `taken` (all but `rejected`), `bad` (something in it, or too much at once),
 * `refused` (the token), or `later`: anything else, also a 400 that is not the store's own problem, as whatever stands
 * before it may give.
 */
function verdictOn({ status, headers, text }, lines) {
  const said = orNull(() => JSON.parse(text)) ?? {};
  const detail = String(said.detail ?? `${status} ${text.slice(0, 200)}`);
  if (status === 200) return verdictOnTaken(said, lines);
  const isProblem = /^application\/problem\+json\s*(;|$)/i.test(headers['content-type']) && said.status === status;
  const isToBeDivided = status === 413 && lines.length > 1;
  if (isToBeDivided || (isProblem && [400, 413, 422].includes(status))) return { is: 'bad', status, detail };
  if (status === 401 || status === 403) return { is: 'refused', status, detail };
  return { is: 'later', after: retryAfter(headers['retry-after']), detail };
}

/** It has to account for each line. A list of rejections that is cut is no answer to so many lines. */
function verdictOnTaken({ success, accepted, duplicates, rejected, rejectedTotal }, lines) {
  const count = lines.filter((line) => line.length).length;
  const isRejection = ({ line, status }) => lines[line - 1] && Number.isInteger(status);
  const isKnown = success === true && Array.isArray(rejected) && rejected.every(isRejection);
  const total = rejectedTotal ?? rejected?.length;
  const isCut = isKnown && total > rejected.length;
  const isWhole = isKnown && accepted + duplicates + total === count && total >= rejected.length;
  if (!isWhole || (isCut && count === 1)) return { is: 'later', after: 0, detail: 'it is not the store that answers' };
  if (isCut) return { is: 'bad', status: 200, detail: 'not all rejections are listed' };
  const late = rejected.find(({ status }) => status >= 500 || [408, 425, 429].includes(status));
  return late ? { is: 'later', after: 0, detail: `${late.status} ${late.detail}` } : { is: 'taken', rejected };
}

/** Milliseconds; the header has seconds or a date. */
function retryAfter(value) {
  if (!value) return 0;
  const wait = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Math.min(Math.max(wait || 0, 0), LONGEST_RETRY_AFTER_MS);
}

// ---------------------------------------------------------------------------------------------------------------------
// Channel
// ---------------------------------------------------------------------------------------------------------------------

let isRefusalSaid = false;
let isLeaving = false;

/** From this process to one store: its queue, those that it has taken over from processes that are gone, its sender. */
class Channel {
  #own = null;
  #taken = []; // queues that others left, oldest first: delivered before our own
  #ring = []; // lines that the disk has not taken
  #ringBytes = 0;
  #losses = new Losses();
  #waiters = new Set();
  #sending = null; // the batch that is on its way
  #running = null;
  #woken = null;
  #failures = 0;
  #trouble = null;
  #adoptedAt = -Infinity;
  #interrupt = null; // ends the pause between two attempts
  #gaveUpAt = null;

  constructor({ url, token, tokenFile, wantedSpool, owner = OWNER }) {
    this.store = new Store(url, token, tokenFile);
    this.wantedSpool = wantedSpool;
    this.owner = owner;
    this.spool = openSpool(wantedSpool);
    this.bound = Number(process.env.SESSION_SPOOL_BYTES) || SPOOL_BYTES;
    this.segmentBytes = Math.min(SEGMENT_BYTES, Math.ceil(this.bound / 8));
    this.isAnswering = true; // as far as is known
  }

  // ---- appending

  /** Keep a line and have it delivered. Does not raise. */
  append(line) {
    this.#hold(line);
    this.#spill();
    if (isLeaving) leave(this);
    else this.wake();
  }

  #hold(line) {
    this.#ring.push(line);
    this.#ringBytes += line.length;
    while (this.#ringBytes > RING_BYTES) {
      this.#losses.note(this.#ring[0]);
      this.#letGo();
    }
  }

  #letGo() {
    this.#ringBytes -= this.#ring.shift().length;
  }

  /** Everything from memory to disk, as far as the disk takes it; it is tried again with the next line. */
  #spill() {
    try {
      while (this.#ring.length) {
        this.#write(this.#ring[0]);
        this.#letGo();
      }
      this.#reportLosses((line) => this.#write(line));
    } catch {
      // what is held stays held
    }
  }

  #reportLosses(keep) {
    if (!this.#losses.any) return;
    const lines = this.#losses.lines(newId());
    this.#losses = new Losses();
    lines.forEach(keep);
  }

  #write(line) {
    this.spool ??= openSpool(this.wantedSpool);
    if (this.spool === null) throw new Error('there is no folder to keep it in');
    this.#own ??= Queue.create(this.spool, this.owner);
    if (this.#own.isFullFor(line, this.segmentBytes)) this.#begin();
    if (this.#own.append(line)) return;
    this.#leaveOwn();
    this.#write(line);
  }

  #begin() {
    try {
      this.#own.begin();
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
      this.#leaveOwn();
      fs.mkdirSync(this.spool, { recursive: true, mode: 0o700 });
      this.#own = Queue.create(this.spool, this.owner);
      this.#own.begin();
    }
    this.#makeRoom();
  }

  /** Our queue is not ours any more; if it is still where it was, what is left of it comes first. */
  #leaveOwn() {
    this.#own.close();
    this.#taken.push(this.#own);
    this.#own = null;
  }

  /** Keep the bound. What has to go is counted before it goes, but never what may be stored at this moment. */
  #makeRoom() {
    const spared = [this.#own.path(this.#own.segment), this.#sending?.queue?.path(this.#sending.segment)];
    const bound = this.bound - this.segmentBytes;
    for (let old; (old = oldestTooMany(this.spool, bound, (path) => spared.includes(path))); ) {
      const { queue, name } = old;
      const losses = new Losses();
      const start = name === queue.place.segment ? queue.place.offset : 0;
      const bytes = name < queue.place.segment ? '' : (ifThere(() => bytesOf(queue.path(name), start)) ?? '');
      bytes.toString().split('\n').forEach((line) => losses.note(line));
      losses.lines(`${queue.family} ${name}`).forEach((line) => this.#own.append(line));
      if (orNull(() => (fs.unlinkSync(queue.path(name)), true)) === null) return;
    }
  }

  // ---- delivering

  /** See to it that what waits is delivered. */
  wake() {
    if (this.#running) return;
    this.#woken ??= setImmediate(() => this.run()).unref();
  }

  /** Deliver until nothing waits, however long that takes. Does not reject. */
  run() {
    this.#woken = null;
    this.#running ??= this.#deliver();
    return this.#running;
  }

  async #deliver() {
    await null; // so that `run` has noted that it runs before it can be over
    try {
      await this.#deliverAll();
    } catch (error) {
      this.#running = null;
      this.#settle(reasonOf(error));
      setTimeout(() => this.wake(), LONGEST_PAUSE_MS).unref();
    }
  }

  async #deliverAll() {
    this.adopt();
    let most = BATCH_LINES;
    for (let batch; (batch = this.#next(most)); this.#settle()) {
      this.#sending = batch;
      const verdict = await this.store.post(batch.lines);
      this.#sending = null;
      this.isAnswering = ['taken', 'bad'].includes(verdict.is);
      if (!this.isAnswering) {
        await this.#waitAfter(verdict);
        continue;
      }
      this.#failures = 0;
      this.#noteTrouble('');
      const isOne = batch.lines.length === 1;
      if (verdict.is === 'taken' || isOne) this.#done(batch, verdict.rejected ?? [{ ...verdict, line: 1 }]);
      most = verdict.is === 'taken' ? Math.min(most * 2, BATCH_LINES) : Math.max(1, batch.lines.length >> 1);
    }
    this.#running = null; // at once: whatever is appended from here on needs another run
    this.#settle();
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
    return this.#own?.next(most) ?? this.#nextOfRing(most);
  }

  /** Where there is no disk to keep anything on, the store may still be there. */
  #nextOfRing(most) {
    if (!this.#ring.length) return null;
    const held = this.#ring.slice(0, Math.min(most, 50));
    return { queue: null, held, lines: held.map((line) => Buffer.from(line.trimEnd())) };
  }

  #done({ queue, segment, end, held, lines }, rejected) {
    for (const { line, status, detail } of rejected) if (this.spool) bury(this.spool, status, detail, lines[line - 1]);
    if (queue) {
      queue.advance(segment, end);
      return;
    }
    while (held.includes(this.#ring[0])) this.#letGo();
    this.#reportLosses((line) => this.#hold(line));
  }

  async #waitAfter({ is, status, after, detail }) {
    this.#own?.sync();
    this.#noteTrouble(detail);
    this.#settle(detail);
    if (is === 'refused') await this.#waitForToken(status, detail);
    else await this.#pause(after || jitter(this.#failures), !after);
    this.#failures = Math.min(this.#failures + 1, 20);
    this.adopt();
  }

  /** For `status`, which is another process: why the store did not take it at the last try; empty if it did. */
  #noteTrouble(trouble) {
    if (trouble === this.#trouble || this.spool === null) return;
    this.#trouble = trouble;
    orNull(() => fs.writeFileSync(join(this.spool, TROUBLE), inOneLine(trouble), { mode: 0o600 }));
  }

  async #waitForToken(status, detail) {
    if (this.store.renewToken()) return;
    this.#complain(status, detail);
    for (let waited = 0; waited < REFUSED_PAUSE_MS && !this.store.renewToken(); waited += TOKEN_LOOK_MS) {
      await this.#pause(TOKEN_LOOK_MS, false);
    }
  }

  #complain(status, detail) {
    if (isRefusalSaid) return;
    isRefusalSaid = true;
    console.error(`hook_agent: the session store at ${this.store.url} refused the token (${status}: ${detail}). ` +
      this.store.tokenTrouble() +
      `What is logged waits in ${this.spool ?? 'memory'}; set SESSION_TOKEN or SESSION_TOKEN_FILE.`);
  }

  /** Neither this nor the sender keeps a program running that has nothing else to do. */
  #pause(milliseconds, mayBeCut) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds).unref();
      if (mayBeCut) this.#interrupt = () => (clearTimeout(timer), resolve());
    }).finally(() => {
      this.#interrupt = null;
    });
  }

  /** Take over the queues of processes that are gone, and those that only a sender has. */
  adopt(atMostEvery = ADOPT_MS) {
    if (this.spool === null || performance.now() - this.#adoptedAt < atMostEvery) return;
    this.#adoptedAt = performance.now();
    for (const found of queuesIn(this.spool)) {
      if (basename(found.folder).endsWith(`.${this.owner}`) || !isFree(found)) continue;
      const queue = new Queue(found.folder);
      if (queue.give(this.owner)) this.#taken.push(queue);
    }
    this.#taken.sort((one, other) => (one.family < other.family ? -1 : 1));
  }

  // ---- waiting for it

  /** True once all that was appended until now is delivered; false after so long, or (impatient) after a failure. */
  flush(milliseconds, { isImpatient = false } = {}) {
    this.#spill();
    const mark = this.#mark();
    if (this.#isDelivered(mark)) return Promise.resolve(true);
    return new Promise((resolve) => {
      const settle = (value) => (clearTimeout(timer), this.#waiters.delete(waiter), resolve(value));
      const waiter = { mark, isImpatient, settle };
      const timer = setTimeout(() => settle(false), milliseconds); // this one does keep the program running
      this.#waiters.add(waiter);
      this.#interrupt?.();
      this.run();
    });
  }

  #mark() {
    return { queue: this.#own, end: this.#own?.end() };
  }

  #isDelivered({ queue, end }) {
    return this.#ring.length === 0 && (queue === null || queue.isPast(end) || end.offset === 0);
  }

  #settle(failure = null) {
    for (const { mark, isImpatient, settle } of this.#waiters) {
      if (this.#isDelivered(mark)) settle(true);
      else if (failure !== null && isImpatient) settle(false);
    }
  }

  // ---- leaving

  /** A moment for what is left, if the store is there, and only one for the same. Whether all of it is delivered. */
  spareMoment() {
    const mark = this.#mark();
    const left = `${mark.queue?.family} ${mark.end?.segment} ${mark.end?.offset}`;
    if (!this.isAnswering || this.#gaveUpAt === left) return Promise.resolve(this.#isDelivered(mark));
    this.#gaveUpAt = left;
    return this.flush(LEAVE_MS, { isImpatient: true });
  }

  /** Called when the process ends: what is left is for whoever comes next. Whether anything is. */
  leave() {
    this.#spill();
    this.#own?.close();
    if (this.#next(1) === null) {
      this.#own?.remove();
      return false;
    }
    for (const queue of [...this.#taken, ...(this.#own ? [this.#own] : [])]) queue.give(NOBODY);
    return true;
  }
}

/** What somebody else said, fit to be shown. */
function inOneLine(text) {
  return [...text.replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ').trim()].slice(0, 300).join('');
}

/** Milliseconds between nothing and a bound that doubles, so that those who failed together do not come together. */
function jitter(failures) {
  return Math.random() * Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
}

const channels = new Map();

/** The one way from this process to that store. */
function channelTo(settings) {
  const key = JSON.stringify(settings);
  if (!channels.has(key)) channels.set(key, new Channel(settings));
  return channels.get(key);
}

/** The settings of the environment, each of which a program may give instead. */
function settingsOf({ serviceUrl, token, tokenFile, spoolDir } = {}) {
  const env = process.env;
  return {
    url: textOf(serviceUrl) || env.SESSION_SERVICE_URL || 'http://localhost:9000',
    token: textOf(token) || (tokenFile ? '' : env.SESSION_TOKEN) || null,
    tokenFile: textOf(tokenFile) || env.SESSION_TOKEN_FILE || null,
    wantedSpool: textOf(spoolDir) || env.SESSION_SPOOL_DIR || null,
  };
}

// ---------------------------------------------------------------------------------------------------------------------
// Agent
// ---------------------------------------------------------------------------------------------------------------------

/** What a call was given, as an object that is ours to change; anything else becomes its member `name`. */
function bodyOf(given, name) {
  const body = plain(given, 2);
  if (isObject(body)) return body;
  return Object.assign(Object.create(null), body === null ? {} : { [name]: body });
}

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
  }

  get sessionId() {
    return this.#self.sessionId;
  }

  get userId() {
    return this.#self.userId || null;
  }

  get serviceUrl() {
    return this.#self.channel.store.url;
  }

  /** Read when first used, so that importing fixes nothing. */
  get #self() {
    const { sessionId, userId } = this.#options;
    this.#is ??= {
      sessionId: fitId(sessionId || process.env.SESSION_ID) || newSessionId(),
      userId: fitUser(userId || process.env.SESSION_USER_ID),
      channel: channelTo(settingsOf(this.#options)),
    };
    return this.#is;
  }

  #record(type, data) {
    this.#enter();
    return this.#append(type, data);
  }

  #append(type, data) {
    try {
      const { sessionId, userId, channel } = this.#self;
      const { eventId, line } = lineOf(type, sessionId, userId, data);
      channel.append(line);
      return { success: true, eventId };
    } catch (error) {
      return { success: false, error: reasonOf(error) };
    }
  }

  #enter(given = {}) {
    if (this.#hasEntered) return { success: true };
    this.#hasEntered = true;
    const { parentSession, tags, initial, metadata } = this.#options;
    const told = {
      parentSession: parentSession || process.env.SESSION_PARENT_ID || undefined,
      tags: tags ?? process.env.SESSION_TAGS?.split(',').map((tag) => tag.trim()).filter(Boolean),
      initial,
      metadata,
    };
    const beginning = bodyOf({ ...told, ...bodyOf(given, 'initial') });
    return this.#append('session_created', settled('session_created', beginning));
  }

  /** Create the session, or resume it; the first other call does it, too. `{initial?, tags?, metadata?, …}` */
  async enter(beginning) {
    return { ...this.#enter(beginning), sessionId: this.sessionId };
  }

  /** `{type, …}` */
  async logAction(action) {
    return this.#log('action', action);
  }

  /** `{type, …}` */
  async logResponse(response) {
    return this.#log('response', response);
  }

  #log(log, given) {
    const entry = settled(log, bodyOf(given, 'value'));
    entry.type ??= 'invalid' in entry || 'value' in entry ? 'invalid' : 'unknown';
    return this.#record(log, entry);
  }

  /** Lay members over the state: objects merge, all else replaces. */
  async updateState(members) {
    return this.#record('state_updated', bodyOf(members, 'value'));
  }

  /** `{description, priority?, status?, id?, …}`; answers with the goal and its `id`. */
  async addGoal(given) {
    const goal = settled('goal_added', bodyOf(given, 'description'));
    goal.id ??= `goal-${newId()}`;
    goal.description ??= '';
    const { eventId: _, timestamp: __, ...told } = { priority: 'medium', status: 'pending', ...goal };
    return { ...told, ...this.#record('goal_added', goal), goal: told };
  }

  /** `{status?, …}` */
  async updateGoal(goalId, changes) {
    if (!isId(goalId)) return this.#misdirected('updateGoal', goalId, changes);
    return this.#record('goal_updated', { ...settled('goal_updated', bodyOf(changes, 'status')), goalId });
  }

  /** `{type, task?, agentId?, parentAgentId?, subsession?}`; answers with the agent and its `agentId`. */
  async spawnAgent(given) {
    const agent = settled('agent_spawned', bodyOf(given, 'type'));
    agent.agentId ??= `agent-${newId()}`;
    agent.type ??= 'agent';
    const { eventId: _, timestamp: spawnedAt = new Date().toISOString(), ...told } = agent;
    agent.timestamp = spawnedAt;
    const answer = this.#record('agent_spawned', agent);
    return { task: null, subsession: null, ...told, status: 'spawned', spawnedAt, ...answer };
  }

  /** `{result?, status?}`, or the result alone. */
  async completeAgent(agentId, given) {
    if (!isId(agentId)) return this.#misdirected('completeAgent', agentId, given);
    const body = bodyOf(given, 'result');
    const isEnd = ['result', 'status', 'eventId', 'timestamp'].some((name) => name in body);
    const end = isEnd || !Object.keys(body).length ? body : bodyOf({ result: body });
    return this.#record('agent_completed', { ...settled('agent_completed', end), agentId });
  }

  /** What names nothing that there could be is logged as what it is. */
  #misdirected(call, id, given) {
    return this.#record('action', bodyOf({ type: 'invalid', call, id, value: given }));
  }

  /** `{status?, outcome?, response?, exitCode?}`; `success` where the status is left out. */
  async finalizeSession(given) {
    const end = bodyOf(given, RULES.session_finalized.status(given) ? 'status' : 'outcome');
    return this.#record('session_finalized', settled('session_finalized', end));
  }

  /** Whether the store answers. */
  async testConnection() {
    return (await this.#self.channel.store.get('/health')) !== null;
  }

  /** All that is needed to go on where the session stopped, or null. */
  async resume() {
    return this.#self.channel.store.get(`/api/sessions/${this.sessionId}/resume`);
  }

  /** Whether all that was logged until now is delivered within so many milliseconds. */
  async flush(milliseconds = 30_000) {
    return this.#self.channel.flush(Number(milliseconds) || 0);
  }

  /** Give what is left two seconds, if the store is there. May be called again, and so may everything else. */
  async close() {
    const { channel } = this.#self;
    const isDone = await channel.spareMoment();
    if (isDone) channel.store.close();
    return isDone;
  }
}

const hookAgent = new SessionHookAgent();

export const enter = (beginning) => hookAgent.enter(beginning);
export const logAction = (action) => hookAgent.logAction(action);
export const logResponse = (response) => hookAgent.logResponse(response);
export const updateState = (members) => hookAgent.updateState(members);
export const addGoal = (goal) => hookAgent.addGoal(goal);
export const updateGoal = (goalId, changes) => hookAgent.updateGoal(goalId, changes);
export const spawnAgent = (agent) => hookAgent.spawnAgent(agent);
export const completeAgent = (agentId, end) => hookAgent.completeAgent(agentId, end);
export const finalizeSession = (end) => hookAgent.finalizeSession(end);
export const testConnection = () => hookAgent.testConnection();
export const resume = () => hookAgent.resume();
export const flush = (milliseconds) => hookAgent.flush(milliseconds);
export const close = () => hookAgent.close();

export default {
  SessionHookAgent,
  enter,
  logAction,
  logResponse,
  updateState,
  addGoal,
  updateGoal,
  spawnAgent,
  completeAgent,
  finalizeSession,
  testConnection,
  resume,
  flush,
  close,
  get sessionId() {
    return hookAgent.sessionId;
  },
  get userId() {
    return hookAgent.userId;
  },
  get serviceUrl() {
    return hookAgent.serviceUrl;
  },
};

// ---------------------------------------------------------------------------------------------------------------------
// Leaving
// ---------------------------------------------------------------------------------------------------------------------

/** Neither comes where a signal ends the program: then the next process that starts finds the rest. */
process.on('beforeExit', () => channels.forEach((channel) => orNull(() => channel.spareMoment())));
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
  spawn(process.execPath, [SELF, 'flush', '--stay'], options).on('error', () => {}).unref();
}

// ---------------------------------------------------------------------------------------------------------------------
// Commands
// ---------------------------------------------------------------------------------------------------------------------

const USAGE = `usage: node hook_agent.mjs COMMAND

  flush [--dead] [SECONDS]   deliver what waits, for at most 30 seconds; exit code 1 if something still waits.
                             --dead: try what was refused for good again as well
  status                     show what waits
  test                       ask the store whether it answers and takes the token; exit code 1 if not

Environment: SESSION_SERVICE_URL, SESSION_TOKEN, SESSION_TOKEN_FILE, SESSION_SPOOL_DIR`;

/** What waits in a spool folder. */
function waitingIn(spool) {
  const waiting = { events: 0, bytes: 0, programs: 0, oldest: null };
  for (const { folder, owner, isSenders } of queuesIn(spool)) {
    const queue = new Queue(folder);
    if (!isFree({ owner, isSenders }) && owner !== OWNER) waiting.programs += 1;
    for (const name of queue.segments()) {
      const start = name === queue.place.segment ? queue.place.offset : 0;
      const text = name < queue.place.segment ? '' : String(orNull(() => bytesOf(queue.path(name), start)) ?? '');
      const lines = text.split('\n').filter(Boolean);
      waiting.events += lines.length;
      waiting.bytes += Buffer.byteLength(text);
      waiting.oldest ??= orNull(() => JSON.parse(lines[0]).timestamp);
    }
  }
  return waiting;
}

function deadIn(spool) {
  return DEAD.reduce((sum, name) => sum + lettersIn(join(spool, name)).length, 0);
}

function lettersIn(path) {
  return (orNull(() => fs.readFileSync(path, 'utf8')) ?? '').split('\n').filter(Boolean);
}

/** Log again what was refused for good. First each file gets a name that nobody else writes to, and keeps it till then. */
function raiseDead(channel) {
  const raised = join(channel.spool, DEAD[0]);
  for (const name of DEAD) {
    if (name !== DEAD[0]) orNull(() => fs.renameSync(join(channel.spool, name), raised));
    lettersIn(raised).map(recordOf).filter(Boolean).forEach((record) => channel.append(`${record}\n`));
    orNull(() => fs.unlinkSync(raised));
  }
}

/** What was refused, to the letter: `bury` puts it last. What was no JSON stands there as a text. */
function recordOf(letter) {
  const event = letter.slice(letter.indexOf(',"event":') + ',"event":'.length, -1);
  const value = orNull(() => JSON.parse(event));
  return isText(value) ? value.replaceAll('\n', ' ') : value && event;
}

function status() {
  const spool = openSpool(settingsOf().wantedSpool);
  if (spool === null) throw new Error('There is no folder for the spool: set SESSION_SPOOL_DIR');
  const { events, bytes, programs, oldest } = waitingIn(spool);
  console.log(`Spool      ${spool}`);
  console.log(`Waiting    ${events} events, ${bytes} bytes${oldest ? `, since ${oldest}` : ''}`);
  console.log(`Programs   ${programs} running`);
  console.log(`Refused    ${deadIn(spool)} events, kept in ${join(spool, 'dead')}; flush --dead tries them again`);
  const token = new Store(settingsOf().url, settingsOf().token, settingsOf().tokenFile).tokenTrouble();
  if (token) console.log(`Token      ${token.trim()}`);
  const trouble = events ? orNull(() => fs.readFileSync(join(spool, TROUBLE), 'utf8')) : '';
  if (trouble) console.log(`Last try   ${trouble}`);
  return 0;
}

async function flushAll(seconds, alsoDead) {
  const channel = channelTo(settingsOf());
  const timer = setTimeout(() => process.exit(stillWaiting(channel.spool)), seconds * 1_000);
  await channel.run();
  if (alsoDead) {
    raiseDead(channel);
    await channel.run();
  }
  clearTimeout(timer);
  return stillWaiting(channel.spool);
}

function stillWaiting(spool) {
  const { events, programs } = waitingIn(spool);
  if (!events) return 0;
  console.error(`${events} events still wait${programs ? ` (${programs} programs are running)` : ''}`);
  return 1;
}

/**
 * Deliver what waits, and leave when nothing does, however long that takes. One process at a time for each spool. A
 * program that ends gives its queue away before it looks for us, and we look for queues after we are gone: so none is
 * left between us.
 */
async function stay() {
  const channel = channelTo({ ...settingsOf(), owner: `send-${OWNER}` });
  const lock = join(channel.spool, SENDER_LOCK);
  const hold = setInterval(() => {}, 1 << 30);
  while (queuesIn(channel.spool).some(isFree) && takeLock(lock)) {
    channel.adopt(0);
    await channel.run();
    orNull(() => fs.unlinkSync(lock));
  }
  clearInterval(hold);
  return 0;
}

function takeLock(path) {
  const holder = orNull(() => fs.readFileSync(path, 'latin1'));
  if (holder && isAlive(holder)) return false;
  orNull(() => fs.unlinkSync(path));
  return orNull(() => (fs.writeFileSync(path, OWNER, { flag: 'wx', mode: 0o600 }), true)) ?? false;
}

async function test() {
  const { store } = new Channel(settingsOf());
  if (store.tokenTrouble()) console.error(store.tokenTrouble().trim());
  if ((await store.get('/health')) === null) return say(1, `The session store at ${store.url} does not answer`);
  const hold = setTimeout(() => {}, ANSWER_MS);
  const { is, detail } = await store.post([]);
  clearTimeout(hold);
  if (is === 'taken') return say(0, `The session store at ${store.url} answers and takes what is sent`);
  return say(1, `The session store at ${store.url} answers, but does not take what is sent: ${detail}`);
}

function say(code, text) {
  (code ? console.error : console.log)(text);
  return code;
}

async function main([command, ...options]) {
  if (command === 'flush' && options[0] === '--stay') return stay();
  if (command === 'flush') return flushAll(options.map(Number).find(Boolean) ?? 30, options.includes('--dead'));
  if (command === 'status') return status();
  if (command === 'test') return test();
  return say(command === '--help' || command === '-h' ? 0 : 2, USAGE);
}

/** Whether this file is what was started, and not a part of it. */
function isStarted() {
  return IS_ITSELF && orNull(() => fs.realpathSync(process.argv[1])) === fs.realpathSync(SELF);
}

if (orNull(isStarted)) {
  main(process.argv.slice(2)).then(
    (code) => process.exit(code),
    (error) => process.exit(say(1, reasonOf(error))),
  );
}
