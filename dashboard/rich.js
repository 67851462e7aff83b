/* Text that means more than its characters: a subset of Markdown, a terminal's colours, code. All of it becomes nodes,
   none of it markup; what is not known stays as it stands, and work grows no faster than the text. */
import { el, fit } from "./dom.js";
import { text, upTo } from "./model.js";

const LONGEST = 200_000, SPANS = 20_000, DEEP = 8;      // characters of a text, of a paragraph with marks; levels

const WORDS = "as async await break case class const continue def default elif else except export extends false False finally fn for from func function if import in interface is let new nil None not null or package private public raise return self static struct switch this throw true True try type use var while with yield SELECT FROM WHERE";
const CODE = new RegExp([`(?<c>(?<!:)//.*|/\\*.*?(?:\\*/|$)|(?<![\\S])(?:#|--)\\s.*|^#.*)`,
  `(?<s>"(?:\\\\.|[^"\\\\])*"|'(?:\\\\.|[^'\\\\])*'|\`[^\`]*\`)`, "(?<n>\\b\\d[\\w.]*)",
  `(?<k>\\b(?:${WORDS.replaceAll(" ", "|")})\\b)`].join("|"), "g");
export function codeOf(line) {
  if (line.length > 1000) return [line];
  return pieces(fit(line), CODE, ({ groups, 0: part }) => el("span", Object.keys(groups).find((name) => groups[name] !== undefined), part));
}
/** A text in parts: what a pattern finds, as `made` makes it of the match, and what is between. */
function pieces(value, pattern, made) {
  const parts = [];
  let done = 0;
  for (const match of value.matchAll(pattern)) {
    parts.push(value.slice(done, match.index), made(match));
    done = match.index + match[0].length;
  }
  return [...parts, value.slice(done)].filter((part) => part !== "");
}

// ---- a terminal's colours: SGR, as ECMA-48 has it

const SGR = /(?:\x1b\[|\x9b)([\d;:]*)m/;
const COLOURS = ["faint", "bad", "good", "wait", "accent", "edit", "tool", "text"].map((name) => `var(--${name})`);
/** One of 256 colours, or one of RGB, that can be read on either ground. */
function colourOf(codes) {
  const kind = codes.shift(), given = codes.splice(0, kind === 2 ? 3 : 1).map((each) => Math.min(255, Math.max(0, each || 0)));
  const [one] = given;
  if (kind === 5 && one < 16) return COLOURS[one % 8];
  const cube = (part) => part && 55 + part * 40, place = one - 16;
  const [r, g, b] = kind === 2 ? given : one > 231 ? Array(3).fill(8 + (one - 232) * 10)
    : [cube(Math.floor(place / 36)), cube(Math.floor(place / 6) % 6), cube(place % 6)];
  return `color-mix(in srgb, rgb(${r} ${g} ${b}) 60%, var(--text))`;
}
function styled(old, codes) {
  const style = { ...old };
  while (codes.length) {
    const code = codes.shift(), is = (name) => { style[name] = code < 20; };
    if (code === 0) for (const name of Object.keys(style)) delete style[name];
    else if (code === 7) style.ground = style.color ?? COLOURS[7];
    else if (code === 38 || code === 48) style[code === 38 ? "color" : "ground"] = colourOf(codes);
    else if ((code >= 30 && code < 40) || (code >= 90 && code < 98)) style.color = COLOURS[code % 10];
    else if ((code >= 40 && code < 50) || (code >= 100 && code < 108)) style.ground = COLOURS[code % 10];
    else if (code % 20 === 1 || code === 22) is("bold"); else if (code % 20 === 3) is("slanted");
    else if (code % 20 === 4) is("lined"); else if (code % 20 === 9) is("struck");
    if (code === 22 || code === 2) style.dim = code === 2;
  }
  return style;
}
export function terminal(value) {
  let style = {};
  return upTo(text(value), 2_000_000).replace(/\r+\n?/g, "\n").split(SGR).flatMap((part, place) => {
    if (place % 2) { style = styled(style, part.split(/[;:]/).map(Number)); return []; }
    const names = ["bold", "dim", "slanted", "lined", "struck"].filter((name) => style[name]);
    if (!part || !(names.length || style.color || style.ground)) return part ? [fit(part)] : [];
    const span = el("span", names.join(" "), part);
    if (style.color) span.style.color = style.color;
    if (style.ground) span.style.background = `color-mix(in srgb, ${style.ground} 30%, transparent)`;
    return [span];
  });
}

export const markdown = (value, code) => el("div", "md", ...blocks(fit(upTo(text(value), LONGEST).replace(/\r+\n?/g, "\n")).split("\n"), code));

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/, ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])(?: +|$)/, RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const HEADING = /^ {0,3}(#{1,6}) +(.{1,2000}?)(?: +#+)?$/, TABLE = /^ {0,3}\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;
const isBegin = (line) => FENCE.test(line) || ITEM.test(line) || HEADING.test(line) || RULE.test(line) || /^ {0,3}>/.test(line);
function blocks(lines, code, depth = 0) {
  const made = [];
  let at = 0;
  const until = (isOver) => { const from = at; while (at < lines.length && !isOver(lines[at])) at++; return lines.slice(from, at); };
  while (at < lines.length) {
    const line = lines[at], fence = FENCE.exec(line), heading = HEADING.exec(line), item = depth < DEEP && ITEM.exec(line);
    if (!line.trim()) at++;
    else if (fence) {
      at++;
      const inside = until((each) => each.trim().startsWith(fence[1]) && !each.trim().slice(fence[1].length).replace(/[`~]/g, ""));
      at++;
      made.push(code(inside.join("\n"), fence[2]));
    } else if (heading) { at++; made.push(el(`h${Math.min(6, heading[1].length + 2)}`, "", ...spans(heading[2]))); }
    else if (RULE.test(line)) { at++; made.push(el("hr")); }
    else if (depth < DEEP && /^ {0,3}>/.test(line)) made.push(el("blockquote", "",
      ...blocks(until((each) => !/^ {0,3}>/.test(each)).map((each) => each.replace(/^ {0,3}> ?/, "")), code, depth + 1)));
    else if (item) made.push(listOf(item));
    else if (line.includes("|") && TABLE.test(lines[at + 1] ?? "")) made.push(tableOf(until((each) => !each.includes("|"))));
    else made.push(el("p", "", ...spans([lines[at++], ...until((each) => !each.trim() || isBegin(each))].join("\n"))));
  }
  return made;
  function listOf([, indent, mark]) {
    const list = el(/\d/.test(mark) ? "ol" : "ul"), sign = mark.at(-1);
    if (/\d/.test(mark)) list.start = parseInt(mark, 10);
    for (let next; at < lines.length && (next = ITEM.exec(lines[at])) && next[1].length === indent.length && next[2].at(-1) === sign;) {
      const wide = next[0].length, first = lines[at++].slice(wide), isMore = (each) => !each.trim() || /^ */.exec(each)[0].length > indent.length;
      const rest = until((each) => !isMore(each) && (isBegin(each) || !lines[at - 1].trim()));
      while (rest.length && !rest.at(-1).trim()) { rest.pop(); }
      const inside = [first, ...rest.map((each) => each.slice(Math.min(wide, /^ */.exec(each)[0].length)))];
      const [, box] = /^\[([ xX])\] /.exec(first) ?? [];
      if (box) inside[0] = `${box === " " ? "☐" : "☑"} ${first.slice(4)}`;
      list.append(el("li", "", ...blocks(inside, code, depth + 1)));
    }
    return list;
  }
}
function tableOf([head, rule, ...rows]) {
  const cells = (line) => line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).slice(0, 60).map((cell) => cell.trim().replace(/\\\|/g, "|"));
  const sides = cells(rule).map((cell) => cell.endsWith(":") && cell.length > 1 ? "right" : "");
  const row = (tag) => (line) => el("tr", "", ...cells(line).map((cell, place) => el(tag, sides[place] ?? "", ...spans(cell))));
  const table = el("div", "scroll-x", el("table", "", el("thead", "", row("th")(head)), el("tbody", "", ...rows.slice(0, 500).map(row("td")))));
  table.tabIndex = 0;
  return table;
}

const SPAN = new RegExp(["\\\\(?<plain>[!-/:-@[-`{-~])", "(?<tick>`{1,3})(?!`)(?<code>[^\\n]{1,300}?)\\k<tick>(?!`)",
  "\\*\\*(?=\\S)(?<b>(?:[^*\\n]|\\*(?!\\*)){1,300})\\*\\*", "~~(?=\\S)(?<del>[^~\\n]{1,300})~~",
  "\\*(?=[^\\s*])(?<i>[^*\\n]{1,300})(?<!\\s)\\*", "(?<![\\w_])_(?=[^\\s_])(?<em>[^_\\n]{1,300})(?<!\\s)_(?!\\w)",
  "!?\\[(?<words>(?:[^\\[\\]\\n]|\\[[^\\[\\]\\n]{0,100}\\]){0,300})\\]\\((?<to>[^()\\s<>]{1,2000}(?:\\([^()\\s<>]{0,200}\\)[^()\\s<>]{0,500})?)(?: \"[^\"\\n]{0,200}\")?\\)",
  "(?<url>\\bhttps?://[^\\s<>\"'`|]{1,2000}[^\\s<>\"'`|.,;:!?)\\]}*])"].join("|"), "g");
function spans(value, depth = 0) {
  if (value.length > SPANS || depth > 3) return [value];
  const inner = (tag) => (words) => el(tag, "", ...spans(words, depth + 1));
  return pieces(value, SPAN, ({ groups: { plain, code, b, del, i, em, words, to, url } }) => plain ?? (code !== undefined ? el("code", "", code)
    : b !== undefined ? inner("b")(b) : del !== undefined ? inner("del")(del) : i ?? em ? inner("em")(i ?? em) : linkTo(to ?? url, words)));
}
/** A link to another place on the web, which says where it leads; any other target is said as text. */
function linkTo(target, words) {
  const address = /^(?:https?:\/\/|mailto:)/i.test(target) && URL.canParse(target) ? new URL(target).href : null;
  const isSaid = !words || [target, address].includes(words) || words === target.replace(/^https?:\/\//, "");
  if (address === null) return el("span", "", words || target, ...(isSaid ? [] : [el("span", "faint", ` (${upTo(target, 120)})`)]));
  const a = el("a", "", isSaid ? address : words);
  Object.assign(a, { href: address, target: "_blank", rel: "noopener noreferrer", title: fit(address) });
  return isSaid ? a : el("span", "", a, el("span", "faint", ` (${upTo(address.replace(/^https?:\/\/|\/$/g, ""), 120)})`));
}
