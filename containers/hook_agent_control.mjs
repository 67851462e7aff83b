/**
 * Remote control of a Node program (human in the loop): it asks people in the session store, and heeds what they order.
 *
 * One file, to be copied beside hook_agent.mjs. Node 20 or newer, no dependency.
 *
 *     import { askPerson, orders } from './hook_agent_control.mjs';
 *     const said = await askPerson({ message: 'Deploy to production?', kind: 'permission' });
 *     if (said?.decision === 'allow') deploy();
 *     for await (const { order, text } of orders()) if (order === 'stop') break;
 *
 * Neither throws for want of a store: a person who cannot be asked has given no answer.
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

import hookAgent from './hook_agent.mjs';

const POLL_SECONDS = 20;
const SLACK_SECONDS = 3; // the store answers in time, or it hangs
const AWAY_MS = 1_000;
const LEAST_MS = 250; // between two questions, whatever the store answers
const DECISIONS = ['allow', 'deny', 'answer'];
const ORDERS = ['stop', 'pause', 'release', 'say'];
const KINDS = ['permission', 'question', 'plan'];

/** SESSION_CONTROL_WAIT, in seconds. */
const waitSeconds = () => Number(process.env.SESSION_CONTROL_WAIT) || 300;

/** Why answers must not come from there; empty if they may. */
export function insecure(address) {
  const { protocol, hostname } = new URL(address);
  const isLoopback = ['localhost', '[::1]'].includes(hostname) || /^127(\.\d{1,3}){3}$/.test(hostname);
  if (protocol === 'https:' || isLoopback || process.env.SESSION_CONTROL_INSECURE === '1') return '';
  const trouble = `${address} is plain HTTP to another machine: whoever is in between could answer`;
  return `${trouble}. Use https, or say SESSION_CONTROL_INSECURE=1`;
}

/** A token as it is now: a file may get a new one at any time. */
function tokenOf({ token, tokenFile }) {
  const { SESSION_TOKEN, SESSION_TOKEN_FILE } = process.env;
  const own = token ?? (tokenFile ? '' : SESSION_TOKEN);
  const path = tokenFile ?? SESSION_TOKEN_FILE;
  if (own || !path) return own;
  try {
    return fs.readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

const isItem = (item) =>
  typeof item?.id === 'string' &&
  (item.kind === 'closed' ||
    (item.kind === 'answer' && DECISIONS.includes(item.decision)) ||
    (item.kind === 'order' && ORDERS.includes(item.order)));

/** What there is to carry out; null: the store is away, or what answers is none. */
async function poll(agent, options, body) {
  const wait = body.wait ?? 0;
  const token = tokenOf(options);
  const signals = [AbortSignal.timeout((wait + SLACK_SECONDS) * 1_000), options.signal].filter(Boolean);
  const signal = AbortSignal.any?.(signals) ?? signals[0];
  try {
    const url = `${agent.serviceUrl}/api/sessions/${agent.sessionId}/control`;
    const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
    const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), redirect: 'error', signal });
    if (answer.status === 204) return [];
    const { items } = answer.status === 200 ? await answer.json() : {};
    return Array.isArray(items) ? items.filter(isItem) : null;
  } catch {
    return null;
  }
}

/** Polls that are told what was carried out, whichever of them the store hears. */
class Side {
  #done = new Set(); // all that this program was handed
  #untold = {};
  #early = []; // what came with an answer to a report

  constructor(agent, options) {
    Object.assign(this, { agent, options });
    if (insecure(agent.serviceUrl)) throw new Error(insecure(agent.serviceUrl));
  }

  /** Waits for what is new; takes no longer than `wait` seconds, and no less than a moment. */
  async next(body) {
    if (this.#early.length) return this.#early.splice(0);
    const report = this.#untold;
    const done = Object.keys(report).filter((id) => !report[id]);
    const refused = Object.fromEntries(Object.entries(report).filter(([, reason]) => reason));
    const found = await poll(this.agent, this.options, { ...body, done, refused });
    if (found === null) {
      await pause(AWAY_MS);
      return [];
    }
    for (const id of Object.keys(report)) delete this.#untold[id];
    const fresh = found.filter(({ id, kind }) => kind === 'closed' || !this.#done.has(id));
    if (!fresh.length) await pause(LEAST_MS);
    return fresh;
  }

  /** It is carried out now, which is once. */
  settle({ id }, reason = '') {
    this.#done.add(id);
    this.#untold[id] = reason;
  }

  /** Tell at once, if that can be; else it goes with the next question. */
  async tell() {
    const early = this.#early.splice(0);
    if (Object.keys(this.#untold).length) early.push(...(await this.next({})));
    this.#early = early;
  }
}

/**
 * Ask a person, and wait for the answer: `{decision: 'allow'|'deny'|'answer', message?, answers?, by}`, or null where
 * nobody has given one within `seconds` (SESSION_CONTROL_WAIT).
 *
 * `question` is `{message, kind: 'question'|'permission'|'plan', options?, tool?, input?}`, or the message alone.
 * `options` is `{agent?, seconds?, token?, tokenFile?, signal?}`; the token is of the environment, as for the agent.
 */
export async function askPerson(question, options = {}) {
  const asked = typeof question === 'string' ? { message: question } : question;
  const { message, kind, options: choices, tool, input } = asked;
  const agent = options.agent ?? hookAgent;
  const side = new Side(agent, options);
  const id = `ask-${randomBytes(10).toString('hex')}`;
  const reason = KINDS.includes(kind) ? kind : 'question';
  const until = Date.now() + (options.seconds ?? waitSeconds()) * 1_000;
  const deadline = new Date(until).toISOString();
  const attention = { reason, message, id, deadline, ...(tool && { tool }), ...(choices && { options: choices }) };
  const { eventId } = await agent.logAction({ type: 'ask', eventId: id, tool, input, attention });
  if (!eventId) return null; // nothing can be kept here, so nobody would see it
  while (Date.now() < until && !options.signal?.aborted) {
    const wait = Math.max(1, Math.min(POLL_SECONDS, Math.floor((until - Date.now()) / 1_000)));
    const about = (await side.next({ wait, ask: eventId })).filter(({ askId }) => askId === eventId);
    const answer = about.find(({ kind }) => kind === 'answer');
    if (answer) {
      side.settle(answer);
      await side.tell();
      const { decision, message, answers, by } = answer;
      return { decision, ...(message && { message }), ...(answers !== undefined && { answers }), by };
    }
    if (about.length) return null; // it is closed
  }
  await agent.logAction({ type: 'ask_given_up', attention: null, attentionId: id });
  return null;
}

/**
 * What people order, each once: `{order: 'stop'|'pause'|'release'|'say', text?, agentId?, releases?, by, refuse}`.
 * One is carried out when it is handed over, unless `refuse(reason)` is called before the next is asked for. For as
 * long as this is iterated the session can be reached; `options` as for askPerson, `signal` ends it.
 */
export async function* orders(options = {}) {
  const side = new Side(options.agent ?? hookAgent, options);
  while (!options.signal?.aborted) {
    for (const item of await side.next({ wait: POLL_SECONDS })) {
      if (item.kind !== 'order') continue;
      side.settle(item);
      const { order, text, agentId, releases, by } = item;
      const given = Object.fromEntries(Object.entries({ text, agentId, releases }).filter(([, it]) => it));
      try {
        yield { order, ...given, by, refuse: (reason) => side.settle(item, String(reason) || 'refused') };
      } finally {
        await side.tell(); // also of the last, after which nobody asks any more
      }
    }
  }
}
