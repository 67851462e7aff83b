/* What came of a session in files: by folder, the net diff of each; its last tests, commits and pull requests. */
import { linesOf, unfolded } from "../blocks.js";
import { el, link, scrolled, timeText } from "../dom.js";
import { count, few, joined, lasting, oneLine, verdictOf } from "../model.js";
import { entryHash } from "../route.js";
import { MANY, Tab, signs } from "./who.js";

const WHOLE = 200;      // edits that are read whole
const VERDICTS = { __proto__: null, ok: ["passed", "completed"], error: ["failed", "failed"] };

export default class ChangesTab extends Tab {
  draw() {
    const { session } = this, { log, work } = session;
    if (!log.begins && !session.loading && !session.paging && log.events.length && log.events.length < MANY) session.older();
    const found = work.look(WHOLE);
    if (!found || work.read === this.shown) return;
    this.shown = work.read;
    this.show(found, work.files());
  }
  show({ tests, commits, pulls }, files) {
    const { session: { id, log, work }, place } = this, entry = (row, words) => link(entryHash(id, row.key), words);
    const fact = (name, none, found) => el("div", "", el("dt", "", name), el("dd", "row", ...(found.length ? found : [el("span", "faint", log.begins ? `unknown: ${none}` : "unknown: only the newest of the log was read")])));
    const box = scrolled(el("div", "panel pad scroll", el("dl", "about", fact("Tests", "no run was seen", tests ? [verdict(tests), entry(tests, oneLine(tests.text)),
      el("span", "dim", joined([verdictOf(work.whole.get(tests.key)), lasting(tests.took), timeText(tests.time)]))] : []),
    fact("Commits", "none was seen", commits.map((row) => entry(row, row.commit))), fact("Pull requests", "none was seen", pulls.map((row) => entry(row, row.pull)))),
    el("h2", "", files.length ? `${few(files.length, "file")} ` : "No file was changed, as far as tool calls tell.", ...(files.length ? signs(files) : [])),
    ...[...Map.groupBy(files, (file) => file.folder)].map(([folder, within]) => el("section", "folder", el("h3", "mono", folder || "."), ...within.map(fileOf)))), "Changes");
    const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.path)), { scrollTop = 0 } = place.firstElementChild ?? {};
    place.replaceChildren(box);
    for (const each of box.querySelectorAll("details")) each.open = open.has(each.dataset.path);
    box.scrollTop = scrollTop;
  }
}
function verdict({ state }) {
  const [words, status] = VERDICTS[state] ?? ["unknown", ""], chip = el("span", "chip", words);
  chip.dataset.status = status;
  return chip;
}
function fileOf(file) {
  const box = el("details", "", el("summary", "row", el("b", "mono", file.name), ...signs([file]), el("span", "dim", few(file.edits, "edit")),
    file.isNew ? el("span", "tag", "new") : "", file.failed ? el("span", "bad", `${count(file.failed)} failed`) : "", file.unread ? el("span", "faint", `${few(file.unread, "edit")} unknown`) : ""));
  box.dataset.path = file.path;
  return unfolded(box, () => file.parts.map(linesOf));
}
