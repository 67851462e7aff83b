/* What is said to people: spans of time, counts, lines; text made fit for a screen; long text cut. */
import vocabulary from "../vocabulary.js";

export const ENDED = vocabulary.ended;
export const FEED = 500;
export const LOG = 8000;
const { characters: BRIEF, members: MEMBERS, items: ITEMS, depth: DEPTH } = vocabulary.brief;      // what is kept in a list

/** Milliseconds, as a person would say them; nothing for fewer than none, which only clocks that differ can say. */
export function lasting(ms) {
  if (!Number.isFinite(ms) || ms < 0) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** How long ago, coarse enough not to jump about. */
export function ago(ms) {
  if (!Number.isFinite(ms)) return "";
  if (ms < 5000) return "now";
  if (ms < 60_000) return `${Math.floor(ms / 5000) * 5} s`;
  return lasting(Math.floor(ms / 60_000) * 60_000);
}

export const bytes = (n) => n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(0)} KB` : n < 1 << 30 ? `${(n / (1 << 20)).toFixed(1)} MB`
  : `${(n / (1 << 30)).toFixed(1)} GB`;
const counted = new Intl.NumberFormat("en-US");
export const count = (n) => counted.format(n ?? 0);
/** A number in three digits or so: 950, 1.2k, 34k, 1.2M. */
export const figure = (n) => n < 1000 ? String(Math.round(n)) : n < 999_500 ? `${n < 9950 ? (n / 1000).toFixed(1) : Math.round(n / 1000)}k` : `${(n / 1e6).toFixed(n < 9.95e6 ? 1 : 0)}M`;
/** How full a context is, of which the limit may not be known. */
export const fullness = ({ tokens, limit } = {}, told = count) => !tokens ? "" : limit ? `${Math.round(100 * tokens / limit)} %` : told(tokens);
/** What something cost; what has no price is never 0. */
export const money = (cost) => !cost ? "" : typeof cost.usd !== "number" ? cost.unpricedRequests ? "unpriced" : "" : `$${cost.usd.toFixed(cost.usd < 100 ? 2 : 0)}${cost.unpricedRequests ? "+" : ""}`;
/** What a request used, in words, each with its number. */
const TOKENS = { inputTokens: "input", cacheReadTokens: "read from the cache", cacheWriteTokens: "written to the cache", cacheWrite1hTokens: "to the cache for an hour", outputTokens: "output" };
export const usedBy = (usage) => Object.entries(TOKENS).filter(([name]) => usage[name]).map(([name, words]) => `${count(usage[name])} ${words}`);
/** What something costs; what has no price is said, and is never nothing. */
export function price({ costUsd, usd = costUsd, unpricedRequests: unpriced = 0, requests }) {
  const is = typeof usd === "number", sum = is ? `$${usd >= 100 ? count(Math.round(usd)) : usd.toFixed(usd && usd < 0.1 ? 4 : 2)}` : "";
  if (!is) return unpriced || requests ? "unpriced" : "";
  return unpriced ? `${sum} + ${count(unpriced)} unpriced` : sum;
}
/** What all of some items cost together. */
export const priceOf = (items) => price({ costUsd: items.some((item) => item.costUsd !== null) ? sum(items, "costUsd") : null,
  unpricedRequests: sum(items, "unpricedRequests"), requests: sum(items, "requests") });
export const few = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const sum = (items, name) => items.reduce((all, item) => all + (item[name] ?? 0), 0);
export const joined = (parts, between = " · ") => parts.filter(Boolean).join(between);
export const millis = (time) => Date.parse(time);

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
export const text = (value) => typeof value === "string" ? value : "";

/** What acts on the reader's terminal, in the forms that ECMA-48 has: CSI, then OSC, DCS and their like, then the
    short ones. One that was cut off at the end is none the less one; none goes on into another, so this is quick. */
const ESCAPES = new RegExp(["(?:\\x1b\\[|\\x9b)[0-?]*[ -/]*(?:[@-~]|(?=…?$))",
  "(?:\\x1b[\\]PX^_]|[\\x90\\x98\\x9d-\\x9f])[^\\x07\\x1b\\x90-\\x9f]*(?:\\x07|\\x1b\\\\|\\x9c)", "\\x1b[ -/]*[0-~]"].join("|"), "g");
/** Control characters but tab and line feed, marks that turn the direction of what follows, halves of a character. */
const UNFIT = /\r\n|[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;
const isUnfit = new RegExp(UNFIT.source, "u");
function shownFor(mark) {
  const code = mark.codePointAt(0);
  if (["\r\n", "\u2028", "\u2029"].includes(mark)) return "\n";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x7f ? "\u2421" : code < 0xa0 || (code >= 0xd800 && code <= 0xdfff) ? "\ufffd" : "";
}
/** Text made fit for people, as the server's `for_people` does it: what a terminal acts on and direction marks are left
    out, other control characters are shown as their pictures. All that comes to the screen goes through here. */
export const forPeople = (value) => !isUnfit.test(value) ? value : value.replace(ESCAPES, "").replace(UNFIT, shownFor);
/** JSON text whose unfit characters are escapes: it says the same, to the letter. */
export const forReaders = (json) => !isUnfit.test(json) ? json
  : json.replace(/[^\x20-\x7e\n\t]/gu, (mark) => !isUnfit.test(mark) ? mark : `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);

const graphemes = new Intl.Segmenter();
/** The beginning of a text, `most` long at most, that ends between what people take for characters. */
export function upTo(value, most) {
  if (value.length <= most) return value;
  const from = Math.max(0, most - 64), near = value.slice(from, most + 64);
  const end = from + graphemes.segment(near).containing(most - from).index;
  const whole = end > from ? end : most;
  return value.slice(0, isHalf(value, whole) ? whole - 1 : whole);
}
const isHalf = (value, place) => /[\ud800-\udbff]/.test(value[place - 1]) && /[\udc00-\udfff]/.test(value[place] ?? "");
export const oneLine = (value) => upTo(forPeople(upTo(text(value), 2 * BRIEF)).replace(/\s+/g, " ").trim(), BRIEF);
export const said = (value) => value === null || value === undefined ? "" : typeof value === "string" ? oneLine(value)
  : oneLine(JSON.stringify(value));
/** The first of the members that is a text with something in it. */
export const first = (owner, ...names) => isObject(owner) ? names.map((name) => text(owner[name])).find((value) => value.trim()) ?? "" : "";
export const lastPart = (path) => text(path).split(/[/\\]/).filter(Boolean).at(-1) ?? "";
/** Markdown in a line, without its marks. */
export const unmarked = (value) => oneLine(value).replace(/```[\w+-]* ?|\|(?: *:?-+:? *\|)+/g, "").replace(/(?:^|\s)(?:#{1,6}|[>*+-]|\d+[.)]) (?=\S)|\*\*|~~|`+/g, (mark) => /^\s/.test(mark) ? " " : "")
  .replace(/(?<![\w*])\*([^*\s][^*]{0,200})\*(?![\w*])/g, "$1").replace(/!?\[([^\[\]]{0,300})\]\([^()\s]{1,500}\)/g, "$1");
export const plain = (value) => forPeople(text(value).replace(/\r+\n?/g, "\n"));
/** Whether nothing is said: an empty error is none. */
export const isNothing = (value) => value === undefined || value === null || value === false || value === ""
  || (typeof value === "object" && !Object.keys(value).length);
/** A UUID by its first part; any other id as it is. */
export const shortId = (id) => /^[0-9a-f]{8}-[0-9a-f]{4}-/.test(id) ? id.slice(0, 8) : id;
/** An enum as words: in_progress is "in progress". */
export const spoken = (word) => said(word).replace(/_/g, " ");

/** `value` with long parts cut, as the server's `brief` does it; the same object where nothing is long. */
export function cut(value, depth = DEPTH) {
  if (typeof value === "string") return value.length <= BRIEF ? value : upTo(value, BRIEF) + "…";
  if (Array.isArray(value)) return value.slice(0, depth ? ITEMS : 0).map((item) => cut(item, depth - 1));
  if (isObject(value)) return Object.fromEntries(Object.entries(value).slice(0, depth ? MEMBERS : 0)
    .map(([name, member]) => [name, cut(member, depth - 1)]));
  return value;
}
export function brief(event) {
  const whole = JSON.stringify(event.data);
  if (whole.length <= 2 * BRIEF) return event;
  const data = cut(event.data);
  return JSON.stringify(data) === whole ? event : { ...event, data, brief: true };
}
