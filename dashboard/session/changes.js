/* What came of a session in files: by folder, the net diff of each; its last tests, commits and pull requests. */
import { linesOf } from "../blocks.js";
import { el, link, timeText } from "../dom.js";
import * as Model from "../model.js";
import { count, few, lasting, oneLine } from "../model.js";
import { MANY } from "./who.js";
import { signs, sumOf } from "./work.js";

const WHOLE = 200;

export default class ChangesTab {
  constructor(session, place) { Object.assign(this, { session, place, shown: null }); }
  draw() {
    const { session } = this, { log, work } = session;
    if (!log.begins && !session.loading && !session.paging && log.events.length && log.events.length < MANY) session.older();
    const found = work.look(WHOLE);
    if (!found || work.read === this.shown) return;
    this.shown = work.read;
    this.show(found, work.files());
  }
  show({ tests, commits, pulls }, files) {
    const { session } = this;
    const isPart = !session.log.begins, said = (rows, none) => rows.length ? rows : [el("span", "faint", isPart ? "unknown: only the newest of the log was read" : none)];
    const entry = (row, words) => link(Model.hashOf({ view: "session", id: session.id, tab: "log", query: { entry: row.key } }), words);
    const facts = [["Tests", said(tests ? [el("span", `chip`, tests.state === "ok" ? "passed" : tests.state === "error" ? "failed" : "unknown"), entry(tests, oneLine(tests.text)),
      el("span", "dim", [Model.verdictOf(session.work.whole.get(tests.key)), lasting(tests.took), timeText(tests.time)].filter(Boolean).join(" · "))] : [], "unknown: no run was seen")],
    ["Commits", said(commits.map((row) => entry(row, row.commit)), "unknown: none was seen")],
    ["Pull requests", said(pulls.map((row) => entry(row, row.pull)), "unknown: none was seen")]];
    if (tests) facts[0][1][0].dataset.status = tests.state === "ok" ? "completed" : tests.state === "error" ? "failed" : "";
    const box = el("div", "panel pad scroll", el("dl", "about", ...facts.map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "row", ...value)))),
      el("h2", "", files.length ? `${few(files.length, "file")} ` : "No file was changed, as far as tool calls tell.", ...(files.length ? signs(...sumOf(files)) : [])),
      ...[...Map.groupBy(files, (file) => file.folder)].map(([folder, within]) => el("section", "folder", el("h3", "mono", folder || "."), ...within.map(fileOf))));
    box.tabIndex = 0;
    box.setAttribute("aria-label", "Changes");
    const open = new Set([...this.place.querySelectorAll("details[open]")].map((each) => each.dataset.path)), { scrollTop = 0 } = this.place.firstElementChild ?? {};
    this.place.replaceChildren(box);
    for (const each of box.querySelectorAll("details")) each.open = open.has(each.dataset.path);
    box.scrollTop = scrollTop;
  }
}
function fileOf(file) {
  const box = el("details", "", el("summary", "row", el("b", "mono", file.name), ...signs(file.added, file.removed), el("span", "dim", few(file.edits, "edit")),
    ...(file.isNew ? [el("span", "tag", "new")] : []), ...(file.failed ? [el("span", "bad", `${count(file.failed)} failed`)] : []), ...(file.unread ? [el("span", "faint", `${few(file.unread, "edit")} unknown`)] : [])));
  box.dataset.path = file.path;
  box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) box.append(...file.parts.map((lines) => linesOf(lines))); });
  return box;
}
