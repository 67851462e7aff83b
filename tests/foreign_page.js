// What a page of another origin can try against a store: each attack gives what it got to read.
// `read` and `write` show something if they are let in; `peek` and `push` are kept out by browsers as well.

const until = (thing, ...events) => new Promise((done) => {
  for (const event of events) thing.addEventListener(event, done, { once: true });
});

const added = (tag, members) => document.body.appendChild(Object.assign(document.createElement(tag), members));

const loaded = async (tag, members) => {
  const element = added(tag, members);
  await until(element, 'load', 'error');
  return element;
};

const json = (method, body) => ({
  method, body, headers: { 'content-type': 'application/json' }, credentials: 'include',
});

const blind = (body, headers) => ({ method: 'POST', mode: 'no-cors', body, headers, credentials: 'include' });

const text = async (url, options) => (await fetch(url, options)).text();

const submitted = async (url, enctype, fields) => {
  const frame = added('iframe', { name: `frame-${Math.random()}` });
  const form = added('form', { method: 'POST', action: url, enctype, target: frame.name });
  for (const [name, value] of Object.entries(fields)) {
    form.append(Object.assign(document.createElement('input'), { name, value }));
  }
  form.submit();
  await until(frame, 'load');
};

/** A beacon gives no answer: what is asked after it is answered after it. */
const beaconed = async (store, url, body) => {
  navigator.sendBeacon(url, body);
  await fetch(`${store}/health`, { mode: 'no-cors' });
};

const attacks = {
  read: {
    fetch: (store) => text(`${store}/api/sessions`, { credentials: 'include' }),
    'fetch without a cookie': (store) => text(`${store}/api/events`),
    'the address of nowhere': (store) => text(`${store.replace('localhost', '0.0.0.0')}/api/sessions`),
    'a question in SQL': (store) => text(
      `${store}/datasette/sessions.json?sql=select+session_id+from+sessions`, { credentials: 'include' },
    ),
    XMLHttpRequest: async (store) => {
      const request = new XMLHttpRequest();
      request.open('GET', `${store}/api/sessions`);
      request.withCredentials = true;
      request.send();
      await until(request, 'loadend');
      return request.responseText;
    },
    'a WebSocket': async (store) => {
      const socket = new WebSocket(`${store.replace('http', 'ws')}/ws?after=0`);
      let heard = '';
      socket.onmessage = ({ data }) => {
        heard += data;
        if (data.includes('session_created')) socket.close();
      };
      await until(socket, 'close');
      return heard;
    },
    'an event stream': async (store) => {
      const stream = new EventSource(`${store}/api/events/stream?after=0`, { withCredentials: true });
      const heard = await new Promise((done) => {
        stream.onmessage = ({ data }) => done(data);
        stream.onerror = () => done('');
      });
      stream.close();
      return heard;
    },
  },

  peek: {
    'fetch with a header': (store) => text(`${store}/api/events`, { headers: { 'x-mine': '1' } }),
    'fetch, opaque': (store) => text(`${store}/api/sessions`, { mode: 'no-cors', credentials: 'include' }),
    'a script': async (store) => (await loaded('script', { src: `${store}/api/sessions` })).text,
    'a module': async (store) => JSON.stringify(await import(`${store}/api/sessions`)),
    'an image': async (store) => String((await loaded('img', { src: `${store}/api/sessions` })).width),
    'a frame': async (store) => (await loaded('iframe', { src: `${store}/` })).contentDocument.body.innerText,
    'a style sheet': async (store) => {
      const { sheet } = await loaded('link', { rel: 'stylesheet', href: `${store}/api/sessions` });
      return [...sheet.cssRules].map((rule) => rule.cssText).join();
    },
  },

  write: {
    POST: (store) => text(`${store}/api/actions/evil`, json('POST', '{"type":"x"}')),
    PUT: (store) => text(`${store}/api/sessions/evil`, json('PUT', '{"userId":"evil"}')),
    PATCH: (store) => text(`${store}/api/sessions/evil/metadata`, json('PATCH', '{"evil":1}')),
    DELETE: (store) => text(`${store}/api/sessions/evil`, json('DELETE')),
  },

  push: {
    text: (store) => text(`${store}/api/actions/evil`, blind('{"type":"x"}', { 'content-type': 'text/plain' })),
    'what is of no type': (store) => text(`${store}/api/actions/evil`, blind(new Blob(['{"type":"x"}']))),
    'a type and another': (store) => text(
      `${store}/api/actions/evil`, blind('{"type":"x"}', { 'content-type': 'text/plain; application/json' }),
    ),
    'fields': (store) => text(`${store}/api/actions/evil`, blind(new URLSearchParams({ type: 'x' }))),
    'parts': (store) => text(`${store}/api/actions/evil`, blind(new FormData(added('form')))),
    'a batch': (store) => text(
      `${store}/api/events`, blind('{"type":"action","sessionId":"evil","data":{"type":"x"}}'),
    ),
    'a log-in': (store) => text(`${store}/api/login`, blind('{"token":"x"}')),
    'a beacon of text': (store) => beaconed(store, `${store}/api/actions/evil`, '{"type":"x"}'),
    'a beacon of JSON': (store) => beaconed(
      store, `${store}/api/actions/evil`, new Blob(['{"type":"x"}'], { type: 'application/json' }),
    ),
    'a form that makes JSON': (store) => submitted(
      `${store}/api/actions/evil`, 'text/plain', { '{"type":"x","a":"': '"}' },
    ),
    'a form of fields': (store) => submitted(
      `${store}/api/actions/evil`, 'application/x-www-form-urlencoded', { type: 'x' },
    ),
    'a form of parts': (store) => submitted(`${store}/api/actions/evil`, 'multipart/form-data', { type: 'x' }),
  },
};

const attack = async (kind, name, store) => {
  try {
    return (await attacks[kind][name](store)) ?? '';
  } catch {
    return '';
  }
};
