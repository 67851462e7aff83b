/* What a session has used, by model, agent and prompt; the arithmetic stands behind each figure. */
import { asked, of, query } from "../api.js";
import { el, failure, link } from "../dom.js";
import { figures } from "../figures.js";
import * as Model from "../model.js";
import { count, few, gist, oneLine, shortId, text } from "../model.js";
import { sessionHash } from "../route.js";
import { nameOfAgent } from "./who.js";

const TOKENS = { inputTokens: "input", cacheReadTokens: "read from the cache", cacheWriteTokens: "written to the cache",
  cacheWrite1hTokens: "to the cache for an hour", outputTokens: "output" };

export default class UsageTab {
  constructor(session, place) { Object.assign(this, { session, place, until: null, prompts: new Map() }); }
  draw() {
    const { session } = this, { lastCursor } = session.document.metadata;
    if (this.until === lastCursor) return;
    this.until = lastCursor;
    this.read().catch((error) => this.place.replaceChildren(failure(error.message, () => { this.until = null; this.draw(); })));
  }
  async read() {
    const { session, prompts } = this, usage = await asked(of(session.id, "/usage"));
    if (usage.byPrompt.some(({ promptId }) => promptId && !prompts.has(promptId))) {
      const { items } = await asked(`${of(session.id, "/events")}?${query({ brief: "true", kind: "prompt", order: "desc", limit: 500 })}`);
      for (const { cursor, data } of items) prompts.set(text(data.prompt_id), [gist(data.prompt ?? data.text), cursor]);
    }
    const box = el("div", "scroll usage", ...this.total(usage.total), ...(usage.total.requests ? [
      tableOf("By model", "Model", usage.byModel, ({ model }) => model ?? "unknown"),
      tableOf("By agent", "Agent", usage.byAgent, ({ agentId }) => agentId ? this.toLog(nameOfAgent(session, agentId), { agent: agentId }) : "the session itself"),
      tableOf("By prompt", "Prompt", usage.byPrompt, ({ promptId }) => this.promptOf(promptId))] : []));
    box.tabIndex = 0;
    box.setAttribute("aria-label", "Usage");
    this.place.replaceChildren(box);
  }
  toLog(words, members) { return link(Model.hashOf({ view: "session", id: this.session.id, tab: "log", query: members }), words); }
  promptOf(id) {
    const [words, cursor] = this.prompts.get(id) ?? [];
    return cursor ? this.toLog(oneLine(words), { entry: cursor }) : id ? `Prompt ${shortId(id)}` : "unknown";
  }
  total(total) {
    const { context } = this.session.document.metadata;
    if (!total.requests) return [el("p", "empty", "No request to a model was reported. ", link(sessionHash(this.session.id, "log"), "The log"))];
    const share = context?.limit ? Math.round(100 * context.tokens / context.limit) : null;
    const figures = [[Model.price(total), "cost"], [count(total.totalTokens), "tokens"], [count(total.requests), "requests"],
      [`${Math.round(100 * total.cacheReadTokens / ((total.totalTokens - total.outputTokens) || 1))} %`, "of input from the cache"],
      ...(context?.tokens ? [[share === null ? count(context.tokens) : `${share} %`, share === null ? "tokens in context" : `of ${count(context.limit)} in context`]] : []),
      ...(context?.compactions ? [[count(context.compactions), "compactions"]] : [])];
    return [el("div", "figures-line", ...figures.map(([figure, words]) => el("div", "panel tile", el("b", "", figure), el("span", "", words))))];
  }
}
const tableOf = (title, name, items, naming) => el("section", "panel", el("h2", "", title), el("div", "scroll-x", figures("totalTokens", {
  name: [name, null, (_, item) => naming(item)], requests: ["Requests", count], inputTokens: ["Input", count], cacheReadTokens: ["Cache read", count],
  cacheWriteTokens: ["Cache write", (n, item) => count(n + item.cacheWrite1hTokens)], outputTokens: ["Output", count],
  totalTokens: ["Tokens", count, null, arithmetic], costUsd: ["Cost", (_, item) => Model.price(item), null, arithmetic] })(items)));
function arithmetic(item) {
  const parts = Object.entries(TOKENS).filter(([name]) => item[name]).map(([name, words]) => `${count(item[name])} ${words}`);
  const priced = item.requests - item.unpricedRequests;
  return [`${parts.join(" + ")} = ${few(item.totalTokens, "token")}`, item.reasoningTokens ? `${count(item.reasoningTokens)} of the output for reasoning` : "",
    item.costUsd === null ? "No price is known." : `$${item.costUsd} for ${few(priced, "request")}, $${(1e6 * item.costUsd / (item.totalTokens || 1)).toFixed(2)} a million tokens`,
    item.unpricedRequests ? `${few(item.unpricedRequests, "request")} without a price` : ""].filter(Boolean).join("\n");
}
