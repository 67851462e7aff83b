/**
 * Several stores in SESSION_SERVICE_URL: which has a session, by rendezvous hashing, as hook_agent_fleet.py has it.
 *
 * To be copied beside hook_agent.mjs, which asks it only where that setting has a comma, or a store says that a session
 * is elsewhere now. CommonJS, so that it can be had at once, in the middle of a call. Node 20 or newer.
 */
'use strict';

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const { dirname, join } = require('node:path');

function orNull(work) {
  try {
    return work();
  } catch {
    return null;
  }
}

const withoutEnd = (url) => url.trim().replace(/\/+$/, '');
/** Those that are listed, each once. */
const addresses = (listed) => [...new Set(String(listed).split(',').map(withoutEnd).filter(Boolean))];

/** The stores in the order in which a session takes them: by highest random weight. */
function ranked(sessionId, urls) {
  const weight = (url) => createHash('sha256').update(`${url}\n${sessionId}`).digest('hex');
  return urls.map((url) => [weight(url), url]).sort(([one], [other]) => (one < other ? 1 : -1)).map(([, url]) => url);
}

/** Each store has a folder of its own in the spool, the same as hook_agent.py has for it. */
const spoolOf = (root, url) => join(root, url.replace(/[^A-Za-z0-9]/g, '-').slice(0, 100) || '-');

const fileOf = (root, sessionId) => join(root, 'chosen', sessionId);
const chosen = (root, sessionId) => orNull(() => fs.readFileSync(fileOf(root, sessionId), 'utf8').trim());

/** Where nothing can be written, the hash alone decides. */
function keepChoice(root, sessionId, url) {
  const file = fileOf(root, sessionId);
  orNull(() => {
    fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    fs.writeFileSync(`${file}.${process.pid}`, url, { mode: 0o600 });
    fs.renameSync(`${file}.${process.pid}`, file);
  });
}

/** The store of a session, and its place in the spool; a session keeps what it began with. Whatever has been left there
 * for the others is delivered. */
function storeOf(sessionId, settings, openSpool, channelTo) {
  const [root, urls] = [openSpool(settings.wantedSpool), addresses(settings.url)];
  const known = sessionId ? chosen(root, sessionId) : urls[0];
  const url = urls.includes(known) ? known : ranked(sessionId, urls)[0];
  if (url !== known) keepChoice(root, sessionId, url);
  for (const other of urls.filter((one) => one !== url)) {
    const spoolDir = spoolOf(root, other);
    if (fs.existsSync(spoolDir)) channelTo({ ...settings, serviceUrl: other, spoolDir }).wake();
  }
  const isLeft = fs.readdirSync(root).some((name) => /^node-\d{13}-/.test(name)); // from when there was one store
  if (isLeft) channelTo({ ...settings, serviceUrl: urls[0], spoolDir: root }).wake();
  return { url, wantedSpool: spoolOf(root, url) };
}

/** What a store did not take, since its session is at `url` now, waits for that. False: the program's own setting does
 * not list it: an agent goes, with its token, where that says, and not where some store does. */
function handOn({ spool, owner, store }, url, bytes, channelTo) {
  if (!addresses(process.env.SESSION_SERVICE_URL ?? '').includes(url)) return false;
  const [root, { sessionId }] = [dirname(spool), JSON.parse(bytes)];
  keepChoice(root, sessionId, url);
  const there = { serviceUrl: url, token: store.tokenFile ? null : store.token, tokenFile: store.tokenFile, owner };
  channelTo({ ...there, spoolDir: spoolOf(root, url) }).append(`${bytes}\n`, { sessionId });
  return true;
}

module.exports = { addresses, ranked, spoolOf, chosen, keepChoice, storeOf, handOn };
