/* Who works in a session, and what all of its tabs have in common. */
import { el, slot, template } from "../dom.js";
import * as Model from "../model.js";

export const MANY = 5000;       // events of a session that are loaded unasked

export const listIn = (list) => (Array.isArray(list) ? list : []).filter(Model.isObject);
export const agentsIn = ({ document }) => listIn(document?.state.agents?.spawned).filter((agent) => typeof agent.agentId === "string" && !Model.isInternal(agent));
export const nameOfAgent = (session, agentId) => Model.agentName(agentsIn(session).find((agent) => agent.agentId === agentId) ?? { agentId });
export const signs = (files) => [el("span", "good", `+${Model.count(Model.sum(files, "added"))}`), " ", el("span", "bad", `−${Model.count(Model.sum(files, "removed"))}`)];

export class Tab {
  constructor(session, place, name) {
    Object.assign(this, { session, place });
    if (name) place.replaceChildren(template(`t-${name}`));
  }
  on(name) { return slot(this.place, name); }
}
