/* The conversation, read like a page: prompts, answers, calls as one line each, sub-agents where they were called.
   Messages stand in chunks of which only those near to what is seen are made. */
import { asked, of, query } from "../api.js";
import { pre, prose, toolBlocks, unfolded } from "../blocks.js";
import { button, el, failure, fullDays, iconOf, link, refill, say, timeText } from "../dom.js";
import * as Model from "../model.js";
import { count, few, joined, lasting, millis, oneLine, text } from "../model.js";
import { route, schedule, sessionHash, turn } from "../route.js";
import { Tab, nameOfAgent } from "./who.js";
import { spanChip } from "./head.js";
import { Minimap } from "./minimap.js";

const CHUNK = 8, FIRST = 60, PAGE = 500, MOST = 20_000;

/** What the server gave of a conversation, page by page, put together. */
class Pages {
  constructor(id, agentId = "") { Object.assign(this, { path: of(id, "/conversation"), agentId }); this.begin(); }
  begin() { Object.assign(this, { messages: [], calls: new Map(), after: undefined, more: true, from: "" }); }
  /** The messages that are new or other than they were; null: it is another conversation than before. */
  async next(limit) {
    const page = await asked(`${this.path}?${query({ after: this.after, limit, agentId: this.agentId })}`);
    const isAnew = page.isAnew && this.messages.length > 0;
    if (isAnew) this.begin();
    Object.assign(this, { after: page.nextAfter, more: page.more, from: page.from });
    const changed = page.items.flatMap((message) => this.take(message));
    return isAnew ? null : changed;
  }
  take(message) {
    const last = this.messages.at(-1), { blocks = [] } = message;
    if (message.role === "results") {
      const left = blocks.filter((block) => !this.calls.has(block.toolUseId));
      const changed = blocks.filter((block) => !left.includes(block)).map((result) => { const [call, owner] = this.calls.get(result.toolUseId); call.result ??= result; return owner; });
      return left.length ? [...changed, this.put({ ...message, blocks: left })] : changed;
    }
    if (message.id && message.id === last?.id && message.role === last.role) {
      last.blocks.push(...blocks);
      last.usage = message.usage ?? last.usage;
      this.note(last);
      return [last];
    }
    return [this.put({ ...message, blocks })];
  }
  put(message) { this.messages.push(message); this.note(message); return message; }
  note(message) { for (const block of message.blocks) if (block.type === "call" && block.toolUseId) this.calls.set(block.toolUseId, [block, message]); }
}

export default class ConversationTab extends Tab {
  pages = null;
  chunks = [];
  made = new Map();
  constructor(session, place) {
    super(session, place, "conversation");
    const scroller = this.scroller = this.on("scroller"), list = this.list = this.on("list");
    this.on("show").onchange = (event) => turn({ show: event.target.value });
    this.map = new Minimap(session, this.on("map"), (time) => this.toTime(time));
    this.sight = new IntersectionObserver((seen) => { for (const { isIntersecting, target } of seen) if (isIntersecting) this.fillChunk(target); }, { root: scroller, rootMargin: "900px 0px" });
    scroller.addEventListener("scroll", () => { this.seeing ??= setTimeout(() => this.see(), 100); }, { passive: true });
    this.growth = new ResizeObserver(() => { if (this.isAtEnd) this.toEnd(); });
    this.growth.observe(list);
    this.isAtEnd = !session.isOver();
  }
  /** Where one has come to; not with each picture of a scroll, for to ask costs a layout. */
  see() {
    const { scroller } = this;
    this.seeing = null;
    this.isAtEnd = scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 40;
    this.map.see(this.inSight());
  }
  leave() { this.sight.disconnect(); this.growth.disconnect(); this.map.leave(); this.isLeft = true; }

  async more() {
    if (this.asking) return;
    this.asking = true;
    const { pages } = this;
    this.error = null;
    try {
      do {
        const changed = await pages.next(pages.after === undefined ? FIRST : PAGE);
        if (this.isLeft || pages !== this.pages) break;
        if (changed === null) this.rebuild(); else this.put(changed);
        schedule();
      } while (pages.more && pages.messages.length < MOST);
    } catch (error) { this.error = error; }
    this.asking = false;
    if (!this.isLeft) { if (pages !== this.pages) this.more(); schedule(); }
  }
  draw() {
    const { agent = "", show = "", span = "" } = route.query, { lastCursor } = this.session.document.metadata, key = `${show} ${span}`;
    if (this.pages?.agentId !== agent) { this.pages = new Pages(this.session.id, agent); this.until = null; this.rebuild(); }
    if (this.until !== lastCursor) { this.until = lastCursor; this.more(); }
    if (this.shown !== key) { this.shown = key; this.rebuild(); }
    this.on("show").value = show;
    this.list.dataset.show = show;
    const { messages, more, from } = this.pages, shown = this.chunks.reduce((sum, chunk) => sum + chunk.messages.length, 0);
    say(this.on("said"), this.asking && !messages.length ? "Loading …" : `${shown === messages.length ? "" : `${count(shown)} of `}${few(messages.length, "message")}${
      more && !this.asking ? ", and more" : ""}${from === "events" ? ", as far as hooks and events tell" : ""}`);
    refill(this.on("agent"), `${agent} ${span}`, () => [...spanChip(), ...(agent ? [el("span", "tag", nameOfAgent(this.session, agent)), button("All", () => turn({ agent: "" }))] : [])]);
    refill(this.on("none"), `${this.error?.message} ${shown || this.asking} ${messages.length}`, () => this.error ? [failure(this.error.message, () => this.more())] : shown || this.asking ? []
      : [el("p", "empty", messages.length ? "No message is like that." : "Nothing was said yet. ", link(sessionHash(this.session.id, "log"), "The log has what was logged."))]);
    this.map.draw();
  }

  isShown(message) {
    const { show } = route.query, has = (isSo) => message.blocks.some(isSo);
    return Model.isWithin(route.query, millis(message.at)) && (!show || (show === "talk" ? has(({ type }) => ["text", "image"].includes(type)) && !message.isMachineMade
      : message.isError || has((block) => (block.result ?? block).isError)));
  }
  rebuild() {
    this.sight.disconnect();
    this.made.clear();
    this.chunkOf = new Map();
    this.chunks = [];
    this.list.replaceChildren();
    this.put(this.pages.messages);
  }
  put(messages) {
    for (const message of new Set(messages)) {
      const old = this.made.get(message);
      if (old) old.replaceWith(this.make(message)); else if (this.isShown(message)) this.add(message);
    }
  }
  add(message) {
    if (this.chunkOf.has(message)) return;
    let chunk = this.chunks.at(-1);
    if (!chunk || chunk.messages.length >= CHUNK) {
      chunk = { messages: [], tall: 0, element: el("section", "") };
      chunk.element.chunk = chunk;
      this.chunks.push(chunk);
      this.list.append(chunk.element);
      this.sight.observe(chunk.element);
    }
    chunk.messages.push(message);
    this.chunkOf.set(message, chunk);
    if (chunk.isFilled) { chunk.element.append(this.make(message)); return; }
    chunk.tall += 40 + message.blocks.reduce((sum, block) => sum + (block.type === "text" ? 24 * Math.ceil(block.text.length / 100) : 34), 0);
    chunk.element.style.minHeight = `${Math.min(chunk.tall, 20_000)}px`;
  }
  make(message) { const made = messageOf(this.session, message); this.made.set(message, made); return made; }
  fillChunk({ chunk }) {
    if (chunk.isFilled) return;
    chunk.isFilled = true;
    chunk.element.append(...chunk.messages.map((message) => this.make(message)));
    chunk.element.style.minHeight = "";
  }
  toEnd() {
    if (this.chunks.length) this.fillChunk(this.chunks.at(-1).element);
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  all() { return [...this.chunkOf.keys()]; }

  toMessage(message) {
    this.isAtEnd = false;
    this.fillChunk(this.chunkOf.get(message).element);
    const element = this.made.get(message);
    element.scrollIntoView({ block: "start" });
    element.focus({ preventScroll: true });
  }
  toTime(time) {
    const all = this.all(), found = all.findLast((message) => millis(message.at) <= time) ?? all[0];
    if (found) this.toMessage(found);
  }
  inSight() {
    const { left, top, bottom } = this.scroller.getBoundingClientRect();
    return [top + 6, bottom - 6].map((y) => document.elementFromPoint(left + 40, y)?.closest("article")?.message).filter((message) => message?.at).map((message) => millis(message.at));
  }
  /** The keyboard goes to the next or previous prompt, or answer with text. */
  move(by) {
    const all = this.all().filter((message) => message.blocks.some((block) => block.type === "text"));
    const from = all.findIndex((message) => this.made.get(message)?.contains(document.activeElement));
    const next = all[Math.min(all.length - 1, Math.max(0, from < 0 ? (by > 0 ? 0 : all.length - 1) : from + by))];
    if (next) this.toMessage(next);
  }
}

function messageOf(session, message) {
  const { role, at, usage, model } = message, made = el("article", "message", ...contentOf(session, message));
  made.message = message;
  made.dataset.role = message.isMachineMade || message.isSummary ? "notice" : role;
  made.tabIndex = -1;
  if (message.isError) made.dataset.state = "error";
  if (at) made.append(Object.assign(el("time", "faint", timeText(at)), { title: joined([fullDays.format(millis(at)), text(model), Model.usedBy(usage ?? {}).join(", ")], "\n") }));
  return made;
}
const textIn = (message) => message.blocks.map((block) => text(block.text)).filter(Boolean).join("\n");
function contentOf(session, message) {
  const { role, compaction, isMachineMade, isSummary, blocks } = message;
  if (role === "compaction") {
    const { trigger, preTokens: before, postTokens: after } = compaction ?? {};
    return [el("p", "divider", `Compacted${trigger ? ` (${Model.spoken(trigger)})` : ""}${before ? `: ${count(before)}${after ? ` → ${count(after)}` : ""} tokens` : ""}`)];
  }
  if (role === "conversation") return [el("p", "divider", "Another conversation of the session")];
  if (isSummary) return [lazily(["What the model was told instead"], "thinking", () => blocks.map((block) => prose(Model.summaryText(block.text))))];
  if (isMachineMade || role === "system") {
    const { title, text: words } = Model.face({ type: "action", data: { type: "prompt", prompt: textIn(message), machineMade: true } });
    return [lazily([el("span", "chip", role === "system" ? "System" : title), el("span", "cut grow dim", oneLine(words))], "notice", () => [pre(textIn(message))])];
  }
  return [...(role === "user" ? [el("p", "speaker", "Prompt")] : []), ...blocks.map((block) => BLOCKS[block.type]?.(block, session, message) ?? "")];
}
function lazily(summary, className, content) {
  return unfolded(el("details", className, el("summary", "", ...summary)), () => [el("div", "inside", ...content())]);
}
const leftOut = (block) => block.leftOut ? [el("p", "faint", `… ${count(block.leftOut)} characters more are not shown`)] : [];
const BLOCKS = {
  __proto__: null,
  text: (block) => el("div", "", prose(block.text), ...leftOut(block)),
  thinking: (block) => block.text ? lazily(["Thinking", el("span", "cut grow faint", Model.unmarked(block.text))], "thinking", () => [prose(block.text), ...leftOut(block)])
    : el("p", "faint", "Thinking, which was not told"),
  image: imageOf,
  result: (block) => lazily([el("span", "dim", "Result of an earlier call")], "call", () => outputOf(block)),
  call: callOf,
};
function imageOf({ mediaType, data }) {
  if (!/^image\/(?:png|jpeg|gif|webp)$/.test(mediaType) || !/^[\w+/=\s]+$/.test(text(data))) return el("p", "faint", "An image, which is not here");
  return Object.assign(el("img", "shot"), { src: `data:${mediaType};base64,${data}`, alt: "An image from the conversation", loading: "lazy" });
}
const outputOf = ({ blocks = [] }) => blocks.flatMap((block) => block.type === "image" ? [imageOf(block)] : [pre(block.text), ...leftOut(block)]);
function callOf(call, session, message) {
  const { tool, input, result, agent, toolUseId } = call, row = Model.face({ type: "action", sessionId: session.id, data: { type: "tool_call", tool, input } }), given = result?.blocks ?? [];
  const state = !toolUseId ? "" : !result ? session.isOver() ? "cancelled" : "running" : result.isRejected ? "rejected" : result.isError ? "error" : "ok";
  const output = given.map((block) => text(block.text)).filter(Boolean).join("\n"), images = given.filter((block) => block.type === "image"), outcome = result && (result.isError ? [undefined, output] : [output]);
  const why = ["error", "rejected"].includes(state) ? Model.errorLine({ data: { error: output } }) : "", tag = (items, one) => items?.length ? el("span", "tag", few(items.length, one)) : "";
  const box = lazily([iconOf(row.icon), el("b", "title", toolUseId ? row.title : Model.words(tool)), el("span", "mono cut dim text", oneLine(row.text)), why && el("span", "why cut", why), tag(agent?.messages, "message"), tag(images, "image"),
    el("span", "took", state !== "error" && Model.OUTCOMES[state] || (result ? lasting(result.durationMs ?? (millis(result.at) - millis(message.at))) : ""))], "call", () => [
    ...toolBlocks(tool, input, ...(outcome ?? [])), ...images.map(imageOf), ...leftOut(call), agent ? nested(session, agent) : ""]);
  Object.assign(box.dataset, { state, kind: row.kind });
  return box;
}
function nested(session, agent) {
  const pages = new Pages(session.id, agent.agentId), box = el("div", "nested", el("p", "speaker", nameOfAgent(session, agent.agentId)));
  const put = (messages) => box.append(...messages.map((message) => messageOf(session, message)));
  put((agent.messages ?? []).flatMap((message) => pages.take(message)).filter((message, place, all) => all.indexOf(message) === place));
  Object.assign(pages, { after: agent.nextAfter, more: agent.more });
  const more = button("Show more of this agent", async () => { put(await pages.next(100) ?? []); if (pages.more) box.append(more); else more.remove(); });
  if (pages.more) box.append(more);
  return box;
}
