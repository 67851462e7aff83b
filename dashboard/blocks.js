/* What an entry says, in blocks: JSON as a tree that is opened as one goes, terminals, files, diffs. */
import { button, el, fit } from "./dom.js";
import * as Model from "./model.js";
import { contentText, count, isNothing, isObject, text, upTo } from "./model.js";
import { codeOf, markdown, terminal } from "./rich.js";

const listIn = (list) => Array.isArray(list) ? list : [];
const isOpen = (value) => value !== null && typeof value === "object" && Object.keys(value).length > 0;
export const treeOf = (value, { open = 2, changed = new Set() } = {}) => el("div", "tree", ...members(value, open, "", changed));
function members(value, open, path, changed) {
  if (!isOpen(value)) return [leaf("", value, false)];
  const entries = Object.entries(value), more = entries.length - 500;
  const shown = entries.slice(0, 500).map(([name, member]) => {
    const where = Array.isArray(value) ? `${path}[${name}]` : path ? `${path}.${name}` : name;
    return isOpen(member) ? branch(name, member, open - 1, where, changed) : leaf(name, member, changed.has(where));
  });
  return more > 0 ? [...shown, el("div", "leaf faint", `and ${count(more)} more: see the raw JSON`)] : shown;
}
function branch(name, value, open, path, changed) {
  const size = Object.keys(value).length, isWithin = [...changed].some((other) => other.startsWith(`${path}.`) || other.startsWith(`${path}[`));
  return unfolded(el("details", "", el("summary", changed.has(path) ? "changed" : "", el("span", "key", name), el("span", "faint", Array.isArray(value) ? `  [${size}]` : `  {${size}}`))),
    () => members(value, open, path, changed), open > 0 || isWithin);
}
/** What has its content from when it is first opened. */
export function unfolded(box, content, isOpen = false) {
  const show = () => { if (box.childElementCount === 1) box.append(...content()); };
  box.ontoggle = () => { if (box.open) show(); };
  if (isOpen) { box.open = true; show(); }
  return box;
}
function leaf(name, value, isChanged) {
  const shown = typeof value === "string" ? (value.length > 20_000 ? `${upTo(value, 20_000)} …` : value) : JSON.stringify(value);
  return el("div", `leaf${isChanged ? " changed" : ""}`, ...(name === "" ? [] : [el("span", "key", name), ": "]), el("span", typeof value === "object" ? "nothing" : typeof value, shown));
}

const MOST = 40;              // lines shown before one asks for more
export const LONGEST = 5000;  // characters of one line

function folded(box, lines, add) {
  box.tabIndex = 0;
  add(lines.slice(0, MOST));
  if (lines.length <= MOST) return box;
  const more = button(`Show all ${count(lines.length)} lines`, () => { add(lines.slice(MOST, 20_000)); more.remove(); }, "more");
  return el("div", "", box, more);
}
const SIGNS = { "+": "add", "-": "del", "@": "hunk" };
/** Lines with numbers in front. */
export function linesOf(lines) {
  const box = el("div", "code lines");
  return folded(box, lines, (some) => box.append(...some.flatMap((line) => {
    const { sign = " " } = line, className = SIGNS[sign] ?? "";
    return [el("span", `no ${className} sign`, sign === "@" ? "" : `${line.number ?? line.new ?? line.old ?? ""} ${sign}`), el("span", className, ...codeOf(upTo(line.text, LONGEST) || " "))];
  })));
}

/** What a terminal shows of a text. */
export const pre = (value, className = "") => printed(el("pre", `code ${className}`), value);
const between = (box) => box.childNodes.length ? ["\n"] : [];
const printed = (box, value) => folded(box, text(value).replace(/\r+\n?/g, "\n").split("\n"), (lines) => box.append(...between(box), ...terminal(lines.join("\n"))));
function codeBlock(value, language) {
  if (!language || /^(?:text|txt|console|output|ansi)$/.test(language)) return pre(value);
  const box = el("pre", "code");
  return folded(box, value.split("\n"), (lines) => { for (const line of lines) box.append(...between(box), ...codeOf(line).map(fit)); });
}
export const block = (heading, ...content) => el("section", "block", ...(heading ? [el("h3", "", heading)] : []), ...content);
export const prose = (value) => markdown(value, codeBlock);
const said = (error) => typeof error === "string" ? error : isNothing(error) ? "" : JSON.stringify(error, null, 2);
/** What there is to see of a call of a tool and its result, as blocks. */
export function toolBlocks(tool, input, output, error) {
  const known = TOOL_VIEWS[tool]?.(isObject(input) ? input : {}, output, error);
  const blocks = known ?? [...(input === undefined ? [] : [block("Input", valueView(input))]), ...((output ?? null) === null ? [] : [block("Output", valueView(output))])];
  return isNothing(error) || (known && tool === "Bash") ? blocks : [...blocks, block("Error", pre(said(error), "bad"))];
}
/** Text as text, content blocks as their text, all else as a tree. */
function valueView(value) {
  if (typeof value === "string") return value.includes("\n") || value.length > 120 ? pre(value) : el("p", "prose", value);
  const isText = listIn(value).length && value.every((each) => typeof each?.text === "string");
  return isText ? pre(contentText(value)) : treeOf(value, { open: 3 });
}
const patched = (output) => listIn(output?.structuredPatch).length ? Model.patchLines(output.structuredPatch) : null;
const diffView = (path, lines) => block(path, linesOf(lines));
function editView(input, output) {
  const path = text(input.file_path ?? output?.filePath), patch = patched(output), edits = Array.isArray(input.edits) ? input.edits : [input];
  return (patch ? [patch] : edits.map((edit) => Model.diffLines(text(edit?.old_string), text(edit?.new_string)))).map((lines) => diffView(path, lines));
}
const answered = (heading, output, view = valueView) => output === undefined ? [] : [block(heading, view(output))];
const task = (input, output) => [block(`Task for ${text(input.subagent_type) || "an agent"}`, prose(text(input.prompt) || text(input.description))),
  ...answered("Result", output, (result) => contentText(result) ? prose(contentText(result)) : valueView(result))];
const TODO_MARKS = { __proto__: null, completed: "✓", in_progress: "▸" };
const TOOL_VIEWS = {
  __proto__: null,
  Bash(input, output, error) {
    const screen = el("div", "code", el("pre", "command", text(input.command))), print = (value, className = "") => { if (text(value)) screen.append(printed(el("pre", className), value)); };
    screen.tabIndex = 0;
    print(typeof output === "string" ? output : output?.stdout);
    print(output?.stderr, "bad");
    print(said(error), "bad");
    return [block(text(input.description), screen), ...listIn(output?.bashEditDiff?.files).map((file) => diffView(text(file.filePath), Model.patchLines(file.hunks ?? []))),
      ...(output?.interrupted ? [el("p", "dim", "interrupted")] : [])];
  },
  Read(input, output) {
    const { content, startLine: start = 1 } = output?.file ?? {};
    return [block(text(input.file_path), typeof content === "string" ? linesOf(content.replace(/\n$/, "").split("\n").map((text, i) => ({ number: start + i, text }))) : output === undefined ? "" : valueView(output))];
  },
  Write: (input, output) => patched(output) ? editView(input, output) : [diffView(text(input.file_path), Model.diffLines("", text(input.content).replace(/\n$/, "")))],
  Edit: editView,
  MultiEdit: editView,
  Agent: task,
  Task: task,
  TodoWrite: (input) => [block("", el("div", "prose", ...listIn(input.todos).map((todo) => el("div", "", `${TODO_MARKS[todo?.status] ?? "·"} ${text(todo?.content)}`))))],
  ExitPlanMode: (input) => [block("Plan", prose(text(input.plan)))],
  AskUserQuestion: (input, output) => [...listIn(input.questions).map((asked) => block(text(asked?.header) || "Question", el("p", "prose", text(asked?.question)),
    el("div", "prose dim", listIn(asked?.options).map((option) => `· ${text(option?.label ?? option)}`).join("\n")))), ...answered("Answer", output)],
};

const ANSWERS = ["message", "content", "text", "delta"], PLAIN = { prompt: Model.PROMPTS, answer: ANSWERS, says: ANSWERS };
const TEXTS = ["message", "text", "content", "result", "outcome", "response", "error", "errorDetails", "description", "compact_summary"];
/** The blocks of an entry that is no tool call: its texts as text, the rest as a tree. */
export function entryBlocks(event) {
  const isPlain = PLAIN[Model.face(event).kind], entries = Object.entries(Model.without(event.data));
  const isText = ([name, value]) => (isPlain ?? TEXTS).includes(name) && contentText(value).trim();
  const texts = entries.filter(isText), rest = entries.filter((entry) => !isText(entry)), tree = () => treeOf(Object.fromEntries(rest));
  return [...texts.map(([name, value], place) => block(isPlain && place === 0 ? "" : Model.words(name), name.startsWith("error") ? pre(contentText(value), "bad") : prose(contentText(value)))),
    ...(!rest.length ? [] : [isPlain ? unfolded(el("details", "", el("summary", "dim", "What came with it")), () => [tree()]) : tree()])];
}
