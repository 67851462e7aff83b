/* Diffs, changes between documents, and JSON as text (numbers stay as they are, to the letter). */
import { isObject, text } from "./words.js";

/** Lines of two texts as [{sign, text, old, new}] by a longest common subsequence; large ones as all out, all in. */
export function diffLines(before, after) {
  const a = before === "" ? [] : before.split("\n"), b = after === "" ? [] : after.split("\n");
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const x = a.slice(head, a.length - tail), y = b.slice(head, b.length - tail);
  const middle = x.length * y.length > 250_000 ? [...x.map((line) => ["-", line]), ...y.map((line) => ["+", line])] : lcs(x, y);
  return numbered([...a.slice(0, head).map((line) => [" ", line]), ...middle, ...a.slice(a.length - tail).map((line) => [" ", line])], 1,
    1);
}
function lcs(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1
    : Math.max(best[i + 1][j], best[i][j + 1]);
  const lines = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push([" ", a[i]]); i++; j++; }
    else if (i < a.length && (j === b.length || best[i + 1][j] >= best[i][j + 1])) lines.push(["-", a[i++]]);
    else lines.push(["+", b[j++]]);
  }
  return lines;
}
function numbered(lines, oldStart, newStart) {
  let [old, fresh] = [oldStart, newStart];
  return lines.map(([sign, line]) => ({ sign, text: line, old: sign === "+" ? null : old++, new: sign === "-" ? null : fresh++ }));
}
/** The same of Claude Code's structuredPatch. */
export const patchLines = (hunks) => hunks.filter(isObject)
  .flatMap((hunk) => [{ sign: "@", text: `lines ${hunk.newStart} to ${hunk.newStart + Math.max(0, hunk.newLines - 1)}`, old: null,
  new: null },
  ...numbered((Array.isArray(hunk.lines) ? hunk.lines : []).map((line) => [text(line)[0] ?? " ", text(line).slice(1)]), hunk.oldStart,
    hunk.newStart)]);

/** What changed between two JSON values: [{path, before, after}], undefined where there is nothing; 200 at most. */
export function changes(before, after, path = "", found = []) {
  if (found.length >= 200 || Object.is(before, after)) return found;
  const bothOpen = (isObject(before) && isObject(after)) || (Array.isArray(before) && Array.isArray(after));
  if (!bothOpen) { if (JSON.stringify(before) !== JSON.stringify(after)) found.push({ path, before, after }); return found; }
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  for (const name of names) changes(before[name], after[name], Array.isArray(after) ? `${path}[${name}]` : path ? `${path}.${name}` : name,
    found);
  return found;
}

/** `told` of each mark of a JSON text, and of the space between, that is in none of its strings. */
function marked(json, told) {
  let isText = false;
  return json.replace(/\\.|"|[[{]\s*[\]}]|[[\]{},:]|\s+/gs, (token, place) => {
    if (token === '"') isText = !isText;
    return isText || token === '"' ? token : told(token, place);
  });
}
/** The texts of the items of a JSON array's text, or of the members of an object's. */
export function itemsOf(json) {
  const items = [];
  let depth = 0, start = 0;
  marked(json, (token, place) => {
    if ("[{".includes(token) && ++depth === 1) start = place + 1;
    else if (("]}".includes(token) && --depth === 0) || (token === "," && depth === 1)) { items.push(json.slice(start, place).trim()); start = place + 1; }
  });
  return items.filter(Boolean);
}
export function memberOf(json, name) {
  const begin = `${JSON.stringify(name)}:`;
  return itemsOf(json).find((item) => item.startsWith(begin))?.slice(begin.length);
}
/** JSON text as people like to read it: an indent of two. */
export function pretty(json) {
  let depth = 0;
  const line = (by) => "\n" + "  ".repeat(depth += by);
  return marked(json, (token) => !token.trim() ? "" : token.length > 1 ? token[0] + token.at(-1) : "[{".includes(token) ? token + line(1)
    : "]}".includes(token) ? line(-1) + token : token === "," ? token + line(0) : ": ");
}
