/* What a session has used, by model, agent and prompt; the arithmetic stands behind each figure. */
import { asked, eventsOf, of } from "../api.js";
import { el, failure, link, scrolled } from "../dom.js";
import { figures } from "../figures.js";
import * as Model from "../model.js";
import { count, few, gist, joined, shortId, text, unmarked } from "../model.js";
import { sessionHash } from "../route.js";
import { Tab, nameOfAgent } from "./who.js";

export default class UsageTab extends Tab {
  prompts = new Map();
  draw() {
    const { lastCursor } = this.session.document.metadata;
    if (this.until === lastCursor) return;
    this.until = lastCursor;
    this.read().catch((error) => this.place.replaceChildren(failure(error.message, () => { this.until = null; this.draw(); })));
  }
  async read() {
    const { session, prompts } = this, { id } = session, usage = await asked(of(id, "/usage")), toLog = (words, members) => link(sessionHash(id, "log", members), words);
    if (usage.byPrompt.some(({ promptId }) => promptId && !prompts.has(promptId)))
      for (const { cursor, data } of await eventsOf(id, { brief: "true", kind: "prompt", order: "desc", limit: 500 })) prompts.set(text(data.prompt_id), [unmarked(gist(data.prompt ?? data.text)), cursor]);
    const promptOf = (promptId) => {
      const [words, entry] = prompts.get(promptId) ?? [];
      return entry ? toLog(words, { entry }) : promptId ? `Prompt ${shortId(promptId)}` : "unknown";
    };
    this.place.replaceChildren(scrolled(el("div", "scroll usage", this.total(usage.total), ...(usage.total.requests ? [
      tableOf("By model", "Model", usage.byModel, ({ model }) => model ?? "unknown"),
      tableOf("By agent", "Agent", usage.byAgent, ({ agentId: agent }) => agent ? toLog(nameOfAgent(session, agent), { agent }) : "the session itself"),
      tableOf("By prompt", "Prompt", usage.byPrompt, ({ promptId }) => promptOf(promptId))] : [])), "Usage"));
  }
  total(total) {
    const { context } = this.session.document.metadata, { limit, compactions } = context ?? {};
    if (!total.requests) return el("p", "empty", "No request to a model was reported. ", link(sessionHash(this.session.id, "log"), "The log"));
    const figures = [[Model.price(total), "cost"], [count(total.totalTokens), "tokens"], [count(total.requests), "requests"],
      [`${Math.round(100 * total.cacheReadTokens / ((total.totalTokens - total.outputTokens) || 1))} %`, "of input from the cache"],
      [Model.fullness(context ?? {}), limit ? `of ${count(limit)} in context` : "tokens in context"], [compactions && count(compactions), "compactions"]];
    return el("div", "figures-line", ...figures.filter(([figure]) => figure).map(([figure, words]) => el("div", "panel tile", el("b", "", figure), el("span", "", words))));
  }
}
const tableOf = (title, name, items, naming) => el("section", "panel", el("h2", "", title), scrolled(el("div", "scroll-x", figures("totalTokens", {
  name: [name, null, (_, item) => naming(item)], requests: ["Requests", count], inputTokens: ["Input", count], cacheReadTokens: ["Cache read", count],
  cacheWriteTokens: ["Cache write", (n, item) => count(n + item.cacheWrite1hTokens)], outputTokens: ["Output", count],
  totalTokens: ["Tokens", count, null, arithmetic], costUsd: ["Cost", (_, item) => Model.price(item), null, arithmetic] })(items)), title));
/** How a sum came to be, in a line for each part. */
function arithmetic(item) {
  return joined([`${Model.usedBy(item).join(" + ")} = ${few(item.totalTokens, "token")}`, item.reasoningTokens ? `${count(item.reasoningTokens)} of the output for reasoning` : "",
    item.costUsd === null ? "No price is known." : `$${item.costUsd} for ${few(item.requests - item.unpricedRequests, "request")}, $${(1e6 * item.costUsd / (item.totalTokens || 1)).toFixed(2)} a million tokens`,
    item.unpricedRequests ? `${few(item.unpricedRequests, "request")} without a price` : ""], "\n");
}
