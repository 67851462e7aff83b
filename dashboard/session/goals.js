/* The goals of a session: set, and ticked off. */
import { asked, stateOf } from "../api.js";
import { attempt } from "../doing.js";
import { el, fill, make, slot, sync, timeText } from "../dom.js";
import * as Model from "../model.js";
import { said, text } from "../model.js";

export default class GoalsTab {
  constructor(session, place) {
    Object.assign(this, { session, list: el("ol", "panel scroll"), none: el("p", "empty", "No goals were set.") });
    const field = el("input", "grow"), form = el("form", "tools writes", field, el("button", "", "Add goal"));
    field.setAttribute("aria-label", "A new goal");
    field.placeholder = "A new goal";
    field.required = true;
    form.onsubmit = async (event) => {
      event.preventDefault();
      const goal = { method: "POST", body: { description: field.value } };
      if (await attempt(() => asked(`${stateOf(session.id)}/goals`, goal), "The goal was added.")) { field.value = ""; session.read(); }
    };
    place.replaceChildren(form, this.list, this.none);
    this.list.tabIndex = 0;
    this.list.setAttribute("aria-label", "Goals");
  }
  draw() {
    const { goals: all } = this.session.document.state, goals = (Array.isArray(all) ? all : []).filter(Model.isObject);
    this.list.hidden = !goals.length;
    this.none.hidden = goals.length > 0;
    sync(this.list, goals, (goal) => goal.id, () => make("t-goal"), (row, goal) => this.drawGoal(row, goal));
  }
  drawGoal(row, goal) {
    const facts = [goal.priority ? `${said(goal.priority)} priority` : "", goal.completedAt ? `completed ${timeText(goal.completedAt)}` : "",
      said(goal.details)];
    slot(row, "status").dataset.status = text(goal.status);
    row.title = said(goal.id);
    fill(row, { status: Model.spoken(goal.status) || "pending", description: said(goal.description) || said(goal.id),
      facts: facts.filter(Boolean).join(", "), done: Model.ENDED.includes(goal.status) ? null : "Mark completed" });
    slot(row, "done").classList.add("writes");
    slot(row, "done").onclick = () => attempt(() => asked(`${stateOf(this.session.id)}/goals/${encodeURIComponent(goal.id)}`,
      { method: "PATCH", body: { status: "completed" } })).then(() => this.session.read());
  }
}
