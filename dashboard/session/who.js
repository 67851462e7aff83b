/* Who works in a session. */
import * as Model from "../model.js";

export const MANY = 5000;       // events of a session that are loaded unasked

export const agentsIn = (session) => (Array.isArray(session.document?.state.agents?.spawned) ? session.document.state.agents.spawned : [])
  .filter((agent) => Model.isObject(agent) && typeof agent.agentId === "string" && !Model.isInternal(agent));
export const nameOfAgent = (session, agentId) =>
  Model.agentName(agentsIn(session).find((agent) => agent.agentId === agentId) ?? { agentId });
