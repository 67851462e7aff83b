/* What came of a session in files: by folder, the net diff of each; its last tests, commits and pull requests. */
import { linesOf, unfolded } from "../blocks.js";
import { el, link, scrolled, timeText } from "../dom.js";
import { count, few, joined, lastPart, lasting, oneLine, patchLines } from "../model.js";
import { entryHash } from "../route.js";
import { Tab, signs } from "./who.js";

const VERDICTS = { passed: "completed", failed: "failed" };

export default class ChangesTab extends Tab {
  draw() {
    const { changes } = this.session;
    if (!changes || changes === this.shown) return;
    this.shown = changes;
    this.show(changes);
  }
  show({ files, tests, commits, pullRequests }) {
    const { session: { id }, place } = this, toEntry = ({ cursor, text }) => link(entryHash(id, cursor), oneLine(text));
    const fact = (name, none, found) => el("div", "", el("dt", "", name), el("dd", "row", ...(found.length ? found : [el("span", "faint", `unknown: ${none}`)])));
    const box = scrolled(el("div", "panel pad scroll", el("dl", "about", fact("Tests", "no run was seen", tests ? [verdict(tests), toEntry({ ...tests, text: tests.command }),
      el("span", "dim", joined([oneLine(tests.verdict), lasting(tests.durationMs), timeText(tests.timestamp)]))] : []),
    fact("Commits", "none was seen", commits.map(toEntry)), fact("Pull requests", "none was seen", pullRequests.map(toEntry))),
    el("h2", "", files.length ? `${few(files.length, "file")} ` : "No file was changed, as far as tool calls tell.", ...(files.length ? signs(files) : [])),
    ...[...Map.groupBy(files, folderOf)].map(([folder, within]) => el("section", "folder", el("h3", "mono", folder || "."), ...within.map(fileOf)))), "Changes");
    const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.path)), { scrollTop = 0 } = place.firstElementChild ?? {};
    place.replaceChildren(box);
    for (const each of box.querySelectorAll("details")) each.open = open.has(each.dataset.path);
    box.scrollTop = scrollTop;
  }
}
const folderOf = ({ path }) => path.slice(0, -lastPart(path).length).replace(/(.)[/\\]$/, "$1");
function verdict({ status }) {
  const chip = el("span", "chip", status);
  chip.dataset.status = VERDICTS[status] ?? "";
  return chip;
}
function fileOf(file) {
  const { path, edits, failed, unknown, isNew, hunks, leftOut } = file, box = el("details", "", el("summary", "row", el("b", "mono", lastPart(path)), ...signs([file]), el("span", "dim", few(edits, "edit")),
    isNew ? el("span", "tag", "new") : "", failed ? el("span", "bad", `${count(failed)} failed`) : "", unknown ? el("span", "faint", `${few(unknown, "edit")} unknown`) : ""));
  box.dataset.path = path;
  return unfolded(box, () => [linesOf(patchLines(hunks)), leftOut ? el("p", "faint", `${few(leftOut, "part")} more: too long to show`) : ""]);
}
