// What people in the store answer and order reaches a Node program, once.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import { SessionHookAgent } from '../../containers/hook_agent.mjs';
import { askPerson, insecure, orders } from '../../containers/hook_agent_control.mjs';
import { Store, eventually, newFolder, newSession } from './surroundings.mjs';

const folder = newFolder();
const store = await Store.create({ SESSIONS_DIR: folder });

function newAgent() {
  return new SessionHookAgent({ serviceUrl: store.url, sessionId: newSession(), spoolDir: newFolder() });
}

/** A request of somebody with the token of the role control. */
async function asPerson(path, body) {
  const authorization = `Bearer ${fs.readFileSync(join(folder, 'tokens', 'control'), 'utf8').trim()}`;
  const headers = { authorization, 'content-type': 'application/json' };
  const method = body ? 'POST' : 'GET';
  const answer = await fetch(store.url + path, { method, headers, body: body && JSON.stringify(body) });
  return { status: answer.status, ...(await answer.json()) };
}

const askOf = ({ sessionId }) => eventually(async () => {
  const { items } = await asPerson(`/api/asks?sessionId=${sessionId}`);
  return items.find(({ canAnswer }) => canAnswer);
}, 'somebody waits for an answer');

const ordered = ({ sessionId }, order) => eventually(async () => {
  const { status, orderId } = await asPerson(`/api/sessions/${sessionId}/orders`, order);
  return status === 201 && orderId;
}, 'the session can be reached');

test('a person answers what a program asks', async () => {
  const agent = newAgent();
  const answering = askPerson({ message: 'Which colour?', options: ['Red', 'Blue'] }, { agent });
  const ask = await askOf(agent);
  assert.deepEqual([ask.kind, ask.text, ask.options], ['question', 'Which colour?', ['Red', 'Blue']]);
  await asPerson(`/api/asks/${ask.askId}/answer`, { decision: 'answer', answers: 'Blue', message: 'as the sky' });
  assert.deepEqual(await answering, { decision: 'answer', message: 'as the sky', answers: 'Blue', by: 'control' });
  const { items } = await asPerson(`/api/asks?sessionId=${agent.sessionId}&status=answered`);
  assert.equal(items[0].answer.status, 'delivered');
});

test('what may be done, or not', async () => {
  const agent = newAgent();
  const answering = askPerson({ message: 'Deploy?', kind: 'permission' }, { agent });
  const { askId, kind } = await askOf(agent);
  assert.equal(kind, 'permission');
  await asPerson(`/api/asks/${askId}/answer`, { decision: 'deny', message: 'Not on a Friday' });
  assert.deepEqual(await answering, { decision: 'deny', message: 'Not on a Friday', by: 'control' });
});

test('nobody answers in time, and the ask is closed', async () => {
  const agent = newAgent();
  assert.equal(await askPerson('Anybody?', { agent, seconds: 1 }), null);
  await agent.flush();
  assert.deepEqual((await asPerson(`/api/asks?sessionId=${agent.sessionId}`)).items, []);
});

test('without a store nobody has answered', async () => {
  const agent = new SessionHookAgent({ serviceUrl: 'http://127.0.0.1:9', spoolDir: newFolder() });
  assert.equal(await askPerson('Anybody?', { agent, seconds: 1 }), null);
});

test('each order is handed over once, and what is refused is said so', async () => {
  const agent = newAgent();
  await agent.enter();
  const given = [];
  const listening = (async () => {
    for await (const { refuse, ...order } of orders({ agent })) {
      given.push(order);
      if (order.order === 'say') refuse('it has no ears');
      if (order.order === 'stop') break;
    }
  })();
  const said = await ordered(agent, { order: 'say', text: 'Hello' });
  const stopped = await ordered(agent, { order: 'stop', text: 'Enough', agentId: 'worker-1' });
  await listening;
  assert.deepEqual(given, [
    { order: 'say', text: 'Hello', by: 'control' },
    { order: 'stop', text: 'Enough', agentId: 'worker-1', by: 'control' },
  ]);
  const { items } = await asPerson(`/api/sessions/${agent.sessionId}/orders`);
  const fates = Object.fromEntries(items.map(({ orderId, status }) => [orderId, status]));
  assert.deepEqual([fates[said], fates[stopped]], ['refused', 'delivered']);
});

test('answers over plain HTTP come from this machine alone', () => {
  assert.equal(insecure('http://127.0.0.1:9000') + insecure('http://[::1]:9000') + insecure('https://a.example'), '');
  assert.match(insecure('http://store.example.com:9000'), /plain HTTP/);
  assert.match(insecure('http://127.0.0.1.example.com'), /plain HTTP/);
});
