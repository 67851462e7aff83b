/* One way to ask the server. */
import { fit } from "./dom.js";
import { query } from "./model.js";

/** What is done where the server wants a token, or another: login.js knows. */
export const access = { lost() {} };
/** What a link to one session has in its fragment: whoever has it may read that session. */
export const shared = new URLSearchParams(location.hash.split("?")[1]).get("share");

/** The server said no; `message` is its sentence. */
export class Refused extends Error { constructor(status, detail) { super(fit(detail)); this.status = status; } }
/** There was no answer. */
export class Away extends Error {}

export async function fetched(path, { method = "GET", body, headers = shared ? { authorization: `Bearer ${shared}` } : {} } = {}) {
  const given = body === undefined ? { headers } : { body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers } };
  const answer = await fetch(path, { method, signal: AbortSignal.timeout(20_000), ...given }).catch(() => { throw new Away("The server does not answer"); });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "api/login") access.lost(shared ? "The link has ended, or was taken back." : "");
  throw new Refused(answer.status, problem.detail ?? `The server answers ${answer.status}`);
}
export { query };
export const asked = async (path, options) => (await fetched(path, options)).json();
export const told = (path, body, method = "POST") => asked(path, { method, body });
export const askedText = async (path) => (await fetched(path)).text();
export const stateOf = (id) => `api/state/${encodeURIComponent(id)}`;
export const of = (id, rest = "") => `api/sessions/${encodeURIComponent(id)}${rest}`;
export const eventsOf = async (id, which) => (await asked(of(id, `/events?${query(which)}`))).items;
