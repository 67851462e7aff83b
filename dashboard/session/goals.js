/* The goals of a session: set, and ticked off. */
import { stateOf, told } from "../api.js";
import { attempt } from "../doing.js";
import { el, fill, make, scrolled, slot, sync, timeText } from "../dom.js";
import * as Model from "../model.js";
import { said, text } from "../model.js";
import { Tab, listIn } from "./who.js";

export default class GoalsTab extends Tab {
  constructor(session, place) {
    super(session, place);
    const field = Object.assign(el("input", "grow"), { ariaLabel: "A new goal", placeholder: "A new goal", required: true }), form = el("form", "tools writes", field, el("button", "", "Add goal"));
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (await this.tell("", { description: field.value }, "POST", "The goal was added.")) field.value = "";
    };
    Object.assign(this, { list: scrolled(el("ol", "panel scroll"), "Goals"), none: el("p", "empty", "No goals were set.") });
    place.replaceChildren(form, this.list, this.none);
  }
  async tell(path, body, method, done) {
    const result = await attempt(() => told(`${stateOf(this.session.id)}/goals${path}`, body, method), done);
    this.session.read();
    return result;
  }
  draw() {
    const goals = listIn(this.session.document.state.goals);
    this.list.hidden = !goals.length;
    this.none.hidden = goals.length > 0;
    sync(this.list, goals, (goal) => goal.id, () => make("t-goal"), (row, goal) => this.drawGoal(row, goal));
  }
  drawGoal(row, goal) {
    const facts = [goal.priority ? `${said(goal.priority)} priority` : "", goal.completedAt ? `completed ${timeText(goal.completedAt)}` : "", said(goal.details)];
    slot(row, "status").dataset.status = text(goal.status);
    row.title = said(goal.id);
    fill(row, { status: Model.spoken(goal.status) || "pending", description: said(goal.description) || said(goal.id),
      facts: Model.joined(facts, ", "), done: Model.ENDED.includes(goal.status) ? "" : "Mark completed" });
    slot(row, "done").onclick = () => this.tell(`/${encodeURIComponent(goal.id)}`, { status: "completed" }, "PATCH");
  }
}
