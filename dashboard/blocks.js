/* What an entry says, in blocks: JSON as a tree that is opened as one goes, terminals, files, diffs. */
import { button, el, fit } from "./dom.js";
import * as Model from "./model.js";
import { count, text, upTo } from "./model.js";
import { codeOf, markdown, terminal } from "./rich.js";

export function treeOf(value, { open = 2, changed = new Set() } = {}) {
  const root = el("div", "tree");
  root.append(...members(value, open, "", changed));
  return root;
}
function members(value, open, path, changed) {
  if (value === null || typeof value !== "object") return [leaf("", value, false)];
  const entries = Object.entries(value);
  if (!entries.length) return [leaf("", value, false)];
  const shown = entries.slice(0, 500).map(([name, member]) => member !== null && typeof member === "object" && Object.keys(member).length
    ? branch(name, member, open - 1, pathOf(value, path, name), changed) : leaf(name, member, changed.has(pathOf(value, path, name))));
  return entries.length > 500 ? [...shown, el("div", "leaf faint", `and ${count(entries.length - 500)} more: see the raw JSON`)] : shown;
}
const pathOf = (owner, path, name) => Array.isArray(owner) ? `${path}[${name}]` : path ? `${path}.${name}` : name;
function branch(name, value, open, path, changed) {
  const isList = Array.isArray(value), size = Object.keys(value).length;
  const summary = el("summary", changed.has(path) ? "changed" : "", el("span", "key", name),
    el("span", "faint", isList ? `  [${size}]` : `  {${size}}`));
  const details = el("details", "", summary);
  const show = () => { if (details.childElementCount === 1) details.append(...members(value, open, path, changed)); };
  details.addEventListener("toggle", () => details.open && show());
  const within = [...changed].some((other) => other.startsWith(path + ".") || other.startsWith(path + "["));
  if (open > 0 || within) { details.open = true; show(); }
  return details;
}
function leaf(name, value, isChanged) {
  const kind = value === null ? "nothing" : typeof value === "object" ? "nothing" : typeof value;
  const shown = typeof value === "string" ? (value.length > 20_000 ? upTo(value, 20_000) + " …" : value) : JSON.stringify(value);
  return el("div", `leaf${isChanged ? " changed" : ""}`, ...(name === "" ? [] : [el("span", "key", name), ": "]), el("span", kind, shown));
}

const MOST = 40;
export const LONGEST = 5000;  // characters of one line

function folded(box, lines, add) {
  box.tabIndex = 0;
  add(lines.slice(0, MOST));
  if (lines.length <= MOST) return box;
  const more = button(`Show all ${count(lines.length)} lines`, () => { add(lines.slice(MOST, 20_000)); more.remove(); }, "more");
  return el("div", "", box, more);
}
export const linesOf = (lines) => { const box = el("div", "code lines");
  return folded(box, lines, (some) => box.append(...some.flatMap((line) => [numberOf(line), lineOf(line)]))); };
const signClass = { "+": "add", "-": "del", "@": "hunk" };
const numberOf = (line) => el("span", `no ${signClass[line.sign] ?? ""} sign`, line.sign === "@" ? ""
  : `${line.number ?? line.new ?? line.old ?? ""} ${line.sign === " " || !line.sign ? " " : line.sign}`);
const lineOf = (line) => el("span", signClass[line.sign] ?? "", ...codeOf(upTo(line.text, LONGEST) || " "));

export const pre = (value, className = "") => printed(el("pre", `code ${className}`), value);
function printed(box, value) {
  return folded(box, text(value).replace(/\r+\n?/g, "\n").split("\n"),
    (lines) => box.append(...(box.childNodes.length ? ["\n"] : []), ...terminal(lines.join("\n"))));
}
const codeBlock = (value, language) => {
  const box = el("pre", "code");
  return language && !/^(?:text|txt|console|output|ansi)$/.test(language) ? folded(box, value.split("\n"), (lines) =>
    box.append(...lines.flatMap((line, place) => [...(place || box.childNodes.length ? ["\n"] : []), ...codeOf(line)].map(fit)))) : pre(value);
};
export const block = (heading, ...content) => el("section", "block", ...(heading ? [el("h3", "", heading)] : []), ...content);
export const prose = (value) => markdown(value, codeBlock);
const numbered = (value, start = 1) => linesOf(value.replace(/\n$/, "").split("\n").map((line, i) => ({ number: start + i, text: line })));
export function toolBlocks(tool, input, output, error) {
  const known = TOOL_VIEWS[tool]?.(Model.isObject(input) ? input : {}, output, error);
  const blocks = known ?? [...(input === undefined ? [] : [block("Input", valueView(input))]),
    ...(output === undefined || output === null ? [] : [block("Output", valueView(output))])];
  if (!Model.isNothing(error)
    && !(known && tool === "Bash")) blocks.push(block("Error",
    pre(typeof error === "string" ? error : JSON.stringify(error, null, 2), "bad")));
  return blocks;
}
function valueView(value) {
  if (typeof value === "string") return value.includes("\n") || value.length > 120 ? pre(value) : el("p", "prose", value);
  const blocks = Array.isArray(value) && value.every((each) => Model.isObject(each) && typeof each.text === "string");
  return blocks && value.length ? pre(Model.contentText(value)) : treeOf(value, { open: 3 });
}
function diffView(path, lines) { return block(path, linesOf(lines)); }
function editView(input, output) {
  const path = text(input.file_path ?? output?.filePath);
  if (Array.isArray(output?.structuredPatch)
    && output.structuredPatch.length) return [diffView(path, Model.patchLines(output.structuredPatch))];
  const edits = Array.isArray(input.edits) ? input.edits : [input];
  return edits.map((edit) => diffView(path, Model.diffLines(text(edit?.old_string), text(edit?.new_string))));
}
const TOOL_VIEWS = {
  __proto__: null,
  Bash(input, output, error) {
    const screen = el("div", "code");
    screen.tabIndex = 0;
    screen.append(el("pre", "command", text(input.command)));
    const print = (value, className = "") => {
      if (text(value)) screen.append(printed(el("pre", className), value)); };
    if (typeof output === "string") print(output); else { print(output?.stdout); print(output?.stderr, "bad"); }
    print(typeof error === "string" ? error : Model.isNothing(error) ? "" : JSON.stringify(error), "bad");
    const files = Array.isArray(output?.bashEditDiff?.files) ? output.bashEditDiff.files : [];
    return [block(text(input.description), screen),
      ...files.map((file) => diffView(text(file.filePath), Model.patchLines(file.hunks ?? []))),
      ...(output?.interrupted ? [el("p", "dim", "interrupted")] : [])];
  },
  Read: (input, output) => [block(text(input.file_path), typeof output?.file?.content === "string"
    ? numbered(output.file.content, output.file.startLine) : output === undefined ? el("p", "dim", "") : valueView(output))],
  Write(input, output) {
    if (Array.isArray(output?.structuredPatch) && output.structuredPatch.length) return editView(input, output);
    return [diffView(text(input.file_path), Model.diffLines("", text(input.content).replace(/\n$/, "")))];
  },
  Edit: editView,
  MultiEdit: editView,
  Agent: (input, output) =>
    [block(`Task for ${text(input.subagent_type) || "an agent"}`, prose(text(input.prompt) || text(input.description))),
    ...(output === undefined ? [] : [block("Result", Model.contentText(output) ? prose(Model.contentText(output)) : valueView(output))])],
  TodoWrite: (input) => [block("",
    el("div", "prose", ...(Array.isArray(input.todos) ? input.todos : [])
    .map((todo) => el("div", "",
    `${todo?.status === "completed" ? "✓" : todo?.status === "in_progress" ? "▸" : "·"} ${text(todo?.content)}`))))],
  ExitPlanMode: (input) => [block("Plan", prose(text(input.plan)))],
  AskUserQuestion: (input, output) => [...(Array.isArray(input.questions) ? input.questions : [])
    .map((asked) => block(text(asked?.header) || "Question", el("p", "prose", text(asked?.question)),
    el("div", "prose dim", (asked?.options ?? []).map((option) => `· ${text(option?.label ?? option)}`).join("\n")))),
    ...(output === undefined ? [] : [block("Answer", valueView(output))])],
};
TOOL_VIEWS.Task = TOOL_VIEWS.Agent;

/** The blocks of an entry that is no tool call: its texts as text, the rest as a tree. */
export function entryBlocks(event) {
  const { kind } = Model.face(event), data = Model.without(event.data);
  const main = kind === "prompt" ? ["prompt", "text", "content", "message"] : kind === "answer" || kind === "says"
    ? ["message", "content", "text", "delta"]
    : ["message", "text", "content", "result", "outcome", "response", "error", "errorDetails", "description", "compact_summary"];
  const texts = Object.entries(data).filter(([name, value]) => main.includes(name) && Model.contentText(value).trim());
  const rest = Object.fromEntries(Object.entries(data).filter(([name]) => !texts.some(([taken]) => taken === name)));
  const isPlain = ["prompt", "answer", "says"].includes(kind);
  return [...texts.map(([name, value], place) => block(isPlain && place === 0 ? "" : Model.words(name), name.startsWith("error")
    ? pre(Model.contentText(value), "bad") : prose(Model.contentText(value)))),
    ...(Object.keys(rest).length ? [isPlain ? foldedTree(rest) : treeOf(rest, { open: 2 })] : [])];
}
function foldedTree(value) {
  const box = el("details", "", el("summary", "dim", "What came with it"));
  box.addEventListener("toggle", () => { if (box.childElementCount === 1) box.append(treeOf(value)); });
  return box;
}
