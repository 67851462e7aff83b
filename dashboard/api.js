/* One way to ask the server. */
import { fit } from "./dom.js";

export const access = { lost() {} };

/** What a link to one session has in its fragment: whoever has it may read that session. */
export const shared = new URLSearchParams(location.hash.split("?")[1]).get("share");

/** The server said no; `message` is its sentence. */
export class Refused extends Error { constructor(status, detail) { super(fit(detail)); this.status = status; } }
export class Away extends Error {}

export async function fetched(path, { method = "GET", body, headers = shared ? { authorization: `Bearer ${shared}` } : {} } = {}) {
  const given = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json", ...headers } };
  let answer;
  try { answer = await fetch(path, { method, headers, signal: AbortSignal.timeout(20_000), ...given });
    } catch { throw new Away("The server does not answer"); }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "api/login") access.lost();
  throw new Refused(answer.status, problem.detail ?? `The server answers ${answer.status}`);
}
export const asked = async (path, options) => (await fetched(path, options)).json();
export const askedText = async (path) => (await fetched(path)).text();
export const query = (members) => new URLSearchParams(Object.entries(members)
  .filter(([, value]) => value !== "" && value !== null && value !== undefined)).toString();
export const stateOf = (id) => `api/state/${encodeURIComponent(id)}`;
export const of = (id, rest = "") => `api/sessions/${encodeURIComponent(id)}${rest}`;
