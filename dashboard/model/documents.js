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

/** The texts of the items of a JSON array's text. */
export function itemsOf(json) {
  const items = [];
  let depth = 0, start = 0, inText = false;
  for (let i = 0; i < json.length; i++) {
    const c = json.charCodeAt(i);
    if (inText) { if (c === 92) i++; else if (c === 34) inText = false; continue; }
    if (c === 34) inText = true;
    else if (c === 91 || c === 123) { if (++depth === 1) start = i + 1; }
    else if (c === 93 || c === 125) { if (--depth === 0 && json.slice(start, i).trim()) items.push(json.slice(start, i).trim()); }
    else if (c === 44 && depth === 1) { items.push(json.slice(start, i).trim()); start = i + 1; }
  }
  return items;
}
export function memberOf(json, name) {
  const member = itemsOf(json).find((item) => item.startsWith(`${JSON.stringify(name)}:`));
  return member === undefined ? undefined : member.slice(JSON.stringify(name).length + 1);
}
export function pretty(json) {
  let out = "", depth = 0;
  const line = () => "\n" + "  ".repeat(depth);
  for (let i = 0; i < json.length; i++) {
    const c = json[i];
    if (c === '"') { let end = i + 1; while (json[end] !== '"') end += json[end] === "\\" ? 2 : 1; out += json.slice(i, end + 1); i = end; }
    else if (c === "{" || c === "[") { const rest = /^\s*[}\]]/.exec(json.slice(i + 1, i + 80));
      if (rest) { out += c + rest[0].trim(); i += rest[0].length; } else { depth++; out += c + line(); } }
    else if (c === "}" || c === "]") { depth--; out += line() + c; }
    else if (c === ",") out += c + line();
    else if (c === ":") out += ": ";
    else if (!/\s/.test(c)) out += c;
  }
  return out;
}
