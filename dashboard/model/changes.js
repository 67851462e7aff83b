/* What came of a session: edits put together to files, tests, commits, pull requests; and money in words. */
import { diffLines, patchLines } from "./documents.js";
import { count, isObject, lastPart, oneLine, text } from "./words.js";

const TESTS = /(?:^|[\s;&|/])(?:pytest|tox|nox|jest|vitest|mocha|rspec|phpunit|ctest|(?:cargo|go|npm|pnpm|yarn|bun|deno|mix|dotnet|gradle|\.\/gradlew|mvn|make|just|swift|node) (?:run )?(?:--)?(?:test|check)[\w:-]*)(?=[\s;&|]|$)/;
const outputOf = (row) => { const { output } = row.events.at(-1).data; return text(output) || text(output?.stdout); };
const commandOf = (row) => text(row.events[0].data.input?.command ?? row.events[0].data.command);

/** Of the rows of a log those that tell what came of it; a commit as "abc1234 its subject". */
export function workOf(rows) {
  const shell = rows.filter((row) => row.icon === "terminal" && row.state !== "running");
  const found = (name, isSo, pattern) => shell.filter((row) => isSo.test(commandOf(row)) && row.state === "ok")
    .flatMap((row) => [...outputOf(row).matchAll(pattern)].map((match) => ({ ...row, [name]: oneLine(match.slice(1).join(" ")) })));
  return {
    edits: rows.filter((row) => row.icon === "edit" && row.state !== "running"),
    tests: shell.findLast((row) => TESTS.test(commandOf(row))) ?? null,
    commits: found("commit", /\bgit\b.*\bcommit\b/s, /^\[[^\]\n]{1,200} ([0-9a-f]{7,40})\] (.{0,200})/gm),
    pulls: found("pull", /\b(?:gh|glab|git)\b/, /(https:\/\/\S{1,200}\/(?:pull|merge_requests)\/\d+)/g),
  };
}
export function verdictOf(events) {
  const lines = events ? [...outputOf({ events }).split("\n"), text(events.at(-1).data.error)].flatMap((line) => line.split("\n")) : [];
  return oneLine(lines.findLast((line) => /\d+ (?:passed|failed|tests?|passing|failing|errors?)\b|^(?:ok|FAIL)\b|test result/i.test(line)) ?? "").replace(/^=+|=+$/g, "").trim();
}

/** Files from [[row, its whole events or null]]: [{path, folder, name, added, removed, edits, failed, unread, isNew, parts}],
    a part being lines of a diff. Where it is known how a file was and came to be, its diff is the net one. */
export function filesOf(edits) {
  const files = new Map();
  for (const [row, events] of edits) {
    const data = (events ?? row.events)[0].data, path = text(data.input?.file_path ?? data.input?.notebook_path ?? data.path ?? data.file_path);
    if (!path) continue;
    if (!files.has(path)) files.set(path, { path, name: lastPart(path), folder: path.slice(0, -lastPart(path).length).replace(/(.)[/\\]$/, "$1"),
      edits: 0, failed: 0, unread: 0, parts: [], before: undefined, now: undefined, isNew: false });
    const file = files.get(path);
    if (row.state !== "ok" && row.state !== null) { file.failed += row.state === "error"; continue; }
    file.edits++;
    if (events) edited(file, data, events.at(-1).data.output); else { file.unread++; file.now = undefined; }
  }
  return [...files.values()].filter((file) => file.edits || file.failed).map(netOf).sort((a, b) => a.path.localeCompare(b.path));
}
function edited(file, { input, tool }, output) {
  const given = isObject(input) ? input : {}, out = isObject(output) ? output : {};
  const was = typeof out.originalFile === "string" ? out.originalFile : out.type === "create" ? "" : file.now;
  file.isNew ||= out.type === "create";
  if (file.edits === 1) file.before = was;
  const changes = tool === "Write" ? null : Array.isArray(given.edits) ? given.edits : [given];
  file.now = changes === null ? text(given.content) : was === undefined ? undefined : changes.reduce((now, { old_string: old, new_string: fresh, replace_all: all }) =>
    now === undefined || !text(old) || !now.includes(old) ? undefined : all ? now.replaceAll(old, () => text(fresh)) : now.replace(old, () => text(fresh)), was);
  if (Array.isArray(out.structuredPatch) && out.structuredPatch.length) file.parts.push(patchLines(out.structuredPatch));
  else if (changes === null) file.parts.push(diffLines(was ?? "", text(given.content)));
  else file.parts.push(...changes.filter((each) => typeof each?.new_string === "string").map((each) => diffLines(text(each.old_string), each.new_string)));
  if (changes?.some((each) => typeof each?.new_string !== "string")) file.unread++;
}
function netOf(file) {
  const { before, now } = file, isKnown = !file.unread && before !== undefined && now !== undefined;
  const parts = isKnown ? [near(diffLines(...[before, now].map((each) => each.replace(/\n$/, ""))))] : file.parts, lines = parts.flat();
  return { ...file, parts, added: lines.filter((line) => line.sign === "+").length, removed: lines.filter((line) => line.sign === "-").length };
}
/** Of the lines of a diff those that changed, and three around them. */
function near(lines) {
  const keep = new Set(lines.flatMap((line, place) => line.sign === " " ? [] : [-3, -2, -1, 0, 1, 2, 3].map((by) => place + by)));
  return lines.flatMap((line, place) => !keep.has(place) ? [] : keep.has(place - 1) || place === 0 ? [line]
    : [{ sign: "@", text: `line ${line.new ?? line.old}`, old: null, new: null }, line]);
}

/** What one types to go on with a session of Claude Code: in its container, if it has one, else in its folder. */
export function resumeLine({ sessionId, where, cwd }) {
  const quoted = (value) => /^[\w./@:-]+$/.test(value) ? value : `'${oneLine(value).replaceAll("'", "'\\''")}'`;
  const folder = text(where?.cwd) || text(cwd), container = text(where?.container), line = `claude --resume ${quoted(text(sessionId))}`;
  if (container) return `docker exec -it ${folder ? `-w ${quoted(folder)} ` : ""}${quoted(container.slice(0, 64))} ${line}`;
  return folder ? `cd ${quoted(folder)} && ${line}` : line;
}

/** What something costs; what has no price is said, and is never nothing. */
export function price({ costUsd, usd = costUsd, unpricedRequests: unpriced = 0, requests }) {
  const is = typeof usd === "number", sum = is ? `$${usd >= 100 ? count(Math.round(usd)) : usd.toFixed(usd && usd < 0.1 ? 4 : 2)}` : "";
  if (!is) return unpriced || requests ? "unpriced" : "";
  return unpriced ? `${sum} + ${count(unpriced)} unpriced` : sum;
}
