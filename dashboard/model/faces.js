/* What an event is, in a line: its kind, icon, title and text; and whether it says that something went wrong. */
import vocabulary from "../vocabulary.js";
import { few, first, isNothing, isObject, joined, money, oneLine, plain, said, shortId, spoken, text } from "./words.js";

const iconsOf = (icons) => Object.fromEntries(Object.entries(icons).flatMap(([icon, names]) => names.split(" ").map((name) => [name, icon])));
const TOOL_ICONS = { __proto__: null, ...iconsOf({ terminal: "Bash BashOutput KillShell", file: "Read", edit: "Write Edit MultiEdit NotebookEdit", search: "Glob Grep", web: "WebFetch WebSearch", agent: "Agent Task",
  goal: "TodoWrite TaskCreate TaskUpdate TaskList", wait: "AskUserQuestion ExitPlanMode" }) };
const ACTION_ICONS = { __proto__: null, ...iconsOf({ terminal: "bash_exec", edit: "file_write file_edit", file: "file_read", mcp: "mcp_call", agent: "task_spawn", web: "web_fetch web_search" }) };
/** Bookkeeping: entries that say nothing which others do not say as well, or that are no step of an agent's. */
export const MINOR = ["post_tool_batch", "instructions_loaded", "metadata_updated", "state_updated", "usage_reported", "order_delivered", "pre_model_switch",
  "post_model_switch", "graph_start", "graph_end", "cwd_changed", "config_change", "setup"];
const TELLING = ["command", "file_path", "notebook_path", "path", "url", "pattern", "query", "subject", "description", "prompt", "message",
  "text", "content", "plan", "name", "to_model", "new_cwd", "worktree_path", "directory", "reason", "trigger"];

export function words(type) {
  const spaced = oneLine(type).replace(/[_-]+/g, " ").trim();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
export const toolName = (tool) => oneLine(tool).startsWith("mcp__") ? oneLine(tool).slice(5).split("__").join(": ") : oneLine(tool) || "Tool";

/** What tells a person most about some input: its command, path, pattern …, else its first text. */
export function gist(value) {
  if (typeof value === "string") return oneLine(value);
  if (!isObject(value)) return value === undefined || value === null ? "" : said(value);
  return oneLine(first(value, ...TELLING) || Object.values(value).find((member) => text(member).trim())
    || (Object.keys(value).length ? JSON.stringify(value) : ""));
}

export function toolGist(tool, input) {
  if (!isObject(input)) return gist(input);
  if (tool === "Agent" || tool === "Task") return oneLine(first(input, "description", "prompt"));
  if (tool === "Grep") return oneLine(joined([first(input, "pattern"), first(input, "path", "glob")], " in "));
  if (tool === "TaskUpdate") return oneLine(`${said(input.taskId)} ${text(input.status)}`);
  if (Array.isArray(input.todos)) return oneLine(input.todos
    .map((todo) => `${todo?.status === "completed" ? "✓" : "·"} ${text(todo?.content)}`).join("  "));
  if (Array.isArray(input.questions)) return oneLine(text(input.questions[0]?.question));
  return gist(input);
}

export function contentText(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map((block) => typeof block === "string" ? block : text(block?.text)).filter(Boolean).join("\n");
  return isObject(value) ? contentText(value.content) || text(value.text) : "";
}

export const isUnwanted = (said) => begins(said.replace(/’/g, "'"), vocabulary.notWanted);
const begins = (said, words) => words.some((word) => said.trimStart().startsWith(word));
/** Whether a person said no to a call, or broke it off: that is no failure. */
export const isRejected = ({ data }) => data.type === "tool_error"
  && (data.rejected === true || data.is_interrupt === true || isUnwanted(text(data.error)));
/** Whether an entry says that something went wrong. */
export function isError({ type, data }) {
  return type === "session_lost" || (!isRejected({ data }) && ((vocabulary.failures.includes(data.type) && vocabulary.logs.includes(type))
    || data.ok === false || data.success === false || data.status === "failed" || Boolean(Number(data.exitCode)) || !isNothing(data.error)));
}
/** What is said beside a mere kind of error, as Claude Code names rate_limit. */
const detailOf = (data) => /^[a-z]+(?:_[a-z]+)*$/.test(text(data.error)) ? first(data, "message", "errorDetails") : "";
/** The first line of what an entry says went wrong; with the second, where the first is no more than an exit code. */
export function errorLine({ data }) {
  const whole = detailOf(data) || (typeof data.error === "string" ? data.error : first(data.error, "message", "error", "detail", "type")
    || (isNothing(data.error) ? first(data, "errorDetails", "reason", "message") : said(data.error)));
  const [one = "", two = ""] = plain(whole).replace(/<\/?tool_use_error>/g, "").split("\n").map((line) => line.trim()).filter(Boolean);
  return oneLine(/^exit code \d+$/i.test(one) && two ? `${one}: ${two}` : one) || exitOf(data);
}
const exitOf = ({ exitCode }) => Number(exitCode) ? `exit code ${exitCode}` : "";

/** Whether a prompt is a machine's word and no person's: one says so, or begins with a tag that Claude Code writes. */
export const isMachineMade = (data) => data.machineMade === true
  || begins(first(data, ...PROMPTS), vocabulary.machineMade);
export const PROMPTS = ["prompt", "text", "content", "message"];
function noticeText(data) {
  const whole = first(data, ...PROMPTS), part = (name) => new RegExp(`<${name}>([^]*?)</${name}>`).exec(whole)?.[1].trim() ?? "";
  return oneLine(part("summary") || joined([part("command-name"), part("command-args")], " ")
    || whole.replace(/<[^<>]{0,200}>/g, " "));
}
export const summaryText = (value) => text(value).replace(/<analysis>[^]*?<\/analysis>|<\/?(?:analysis|summary)>/g, "").trim();
/** Whether an agent is none that anybody spawned: Claude Code's own, which compacts a conversation. */
export const isInternal = (agent) => agent.type === "internal" || agent.type === "";
export const isCompaction = ({ type, data }) => type === "agent_completed" && isInternal(data);
/** Whether an agent's task says in a few words what it is for, as Claude Code's does: it was called by a tool. */
export const isTasked = ({ task, toolUseId, hook_event_name: hook }) => Boolean(hook || toolUseId) && text(task).trim() !== "";
/** An agent's name: such a task; its type where that says something; else the last part of its id, as a node of a graph has it. */
export const agentName = ({ agentId, type, ...agent }) => isTasked(agent) ? oneLine(agent.task) : ["", "agent", "subagent"].includes(text(type))
  ? shortId(text(agentId)).split(".").at(-1).replace(/^([0-9a-f]{8})[0-9a-f]{6,}$/, "$1") || "agent" : said(type);

/** What is known of agents and goals by their ids; `of` gives what others have said of one. */
export const NAMES = new Map();
/** The names with those that an event tells. A goal's update does not say what the goal is, nor an agent's end whose. */
export function named(names, { type, sessionId, data }) {
  const isGoal = type.startsWith("goal"), id = isGoal ? data.id ?? data.goalId : type.startsWith("agent") ? data.agentId : null;
  const name = id === null ? "" : isGoal ? gist(data.description) : isTasked(data) ? agentName(data) : text(data.type), key = `${sessionId} ${id}`;
  if (name && names.get(key) !== name && (isGoal || isTasked(data) || !names.has(key))) { names.set(key, name); if (names.size > 2000) names.delete(names.keys().next().value); }
  return names;
}

/** An event as {kind, icon, title, text}: kind chooses the colour. */
export function face(event, names = NAMES) {
  const { data } = event, known = (id) => names.get(`${event.sessionId} ${id}`);
  const own = FACES[event.type]?.(data, known, event) ?? line("other", words(event.type), gist(data));
  return isError(event) && !["tool", "edit"].includes(own.kind) ? { ...own, kind: "error", icon: "error" } : own;
}

const line = (kind, title, text = "", icon = kind) => ({ kind, icon, title, text });
const ofSession = (title, textOf = (data) => gist(telling(data))) => (data) => line("session", title, textOf(data));
const ofEntry = (data) => (ENTRIES[data.type] ?? anyEntry)(data);
const FACES = {
  __proto__: null,
  action: ofEntry,
  response: ofEntry,
  session_created: ofSession("Session created", (data) => gist(data.initial?.input ?? data.metadata?.source ?? "")),
  session_resumed: ofSession("Session resumed", (data) => gist(data.metadata?.source ?? "")),
  session_finalized: (data) => line("session", ENDED_AS[data.status] ?? "Session ended", endText(data)),
  session_lost: () => line("error", "Session lost", "no word for too long"),
  session_deleted: ofSession("Session deleted", (data) => joined([data.by && `by ${data.by}`, data.reason === "person" ? "" : text(data.reason)], ", ")),
  metadata_updated: (data) => data.attention ? asks(data) : line("session", "Metadata", said(data)),
  state_updated: (data) => line("state", "State", oneLine(joined([text(data.phase), text(data.currentStep)], ": ") || JSON.stringify(data))),
  goal_added: (data) => line("goal", "Goal", gist(data.description)),
  goal_updated: (data, known) => line("goal", `Goal ${spoken(data.status) || "changed"}`, gist(data.description) || known(data.goalId)),
  agent_spawned: (data, known, event) => agentLine(data, known, event, "begins", data.hook_event_name ? data.type : data.task),
  agent_updated: (data, known, event) => agentLine(data, known, event, AGENT_WORDS[data.status] ?? (spoken(data.status) || (isTasked(data) ? "named" : "changed")), data.task ?? data.result),
  agent_completed: (data, known, event) => isCompaction(event) ? line("other", "Compaction", oneLine(summaryText(data.result)), "state")
    : agentLine(data, known, event, spoken(data.status) || "completed", data.result),
  note_added: ofSession("Note", (data) => gist(data.text)),
  usage_reported: ofSession("Usage", (data) => data.compaction ? "compaction" : oneLine(joined([text(data.model), few(tokensOf(data), "token"), money({ usd: data.costUsd })]))),
  budget_crossed: (data) => line("error", "Budget crossed", said(data)),
  answered: ofSession("Answered", (data) => gist(data.message ?? data.decision)),
  ask_closed: ofSession("Ask closed"),
  ordered: (data) => line("session", `Order to ${spoken(data.order)}`, gist(data.text)),
  order_delivered: ofSession("Order delivered"),
  order_closed: ofSession("Order closed"),
};
const AGENT_WORDS = { __proto__: null, running: "begins again", paused: "pauses" };
/** What an agent does or is, and of what `more` says that which its name does not. */
function agentLine(data, known, event, does, more) {
  const agentId = data.agentId ?? event.agentId, name = agentName({ ...data, agentId, type: known(agentId) ?? data.type }), words = readable(more);
  return line("agent", `${name} ${does}`, words === name ? "" : words);
}
const tokensOf = (data) => ["inputTokens", "cacheReadTokens", "cacheWriteTokens", "cacheWrite1hTokens", "outputTokens"].reduce((sum, name) => sum + (Number(data[name]) || 0), 0);
const ENDED_AS = { __proto__: null, failed: "Session failed", cancelled: "Session cancelled" };
/** Why Claude Code says that it has ended. */
const REASONS = { __proto__: null, prompt_input_exit: "left at the prompt", clear: "the conversation was cleared", logout: "logged out",
  resume: "another conversation was resumed", bypass_permissions_disabled: "permissions may not be bypassed" };
/** Why something has ended, in words: what came of it, what went wrong, or the reason that was given. */
export const endText = (data) => oneLine(text(data.outcome)) || (isNothing(data.error) ? "" : errorLine({ data })) || (REASONS[text(data.reason)] ?? spoken(data.reason))
  || said(data.response ?? data.finalResponse) || exitOf(data);
/** What tells most of a task or result, which graphs give as JSON. */
function readable(value) {
  if (typeof value !== "string" || !/^\s*[[{]/.test(value)) return said(value);
  try { return gist(JSON.parse(value)); } catch { return oneLine(value); }
}
const ASKS = { __proto__: null, permission: "Asks for permission", question: "Asks a question", plan: "Asks about a plan" };
const asks = (data) => line("wait", ASKS[data.attention?.reason] ?? "Waits for a person", oneLine(text(data.attention?.message) || gist(data)));
function call({ tool, input }) {
  const icon = TOOL_ICONS[tool] ?? (text(tool).startsWith("mcp__") ? "mcp" : "other");
  return line(["edit", "agent"].includes(icon) ? icon : "tool", toolName(tool), toolGist(tool, input), icon);
}
export const ENTRIES = {
  __proto__: null,
  prompt: (data) => isMachineMade(data) ? line("notice", "System notice", noticeText(data), "state") : line("prompt", "Prompt", plain(first(data, ...PROMPTS)) || gist(data)),
  assistant_message: (data) => line("answer", "Answer", plain(contentText(data.message ?? data.content ?? data.text)), "says"),
  message_display: (data) => line("says", "Says", plain(data.delta)),
  tool_call: call,
  tool_result: (data) => data.tool ? call(data) : line("tool", "Result", gist(data.output ?? without(data)), "other"),
  tool_error: (data) => data.tool ? call(data) : line("tool", "Failed", said(data.error), "other"),
  permission_request: asks,
  elicitation: asks,
  notification: (data) => data.attention ? asks(data) : line("other", "Notification", gist(data.message)),
  post_tool_batch: (data) => line("other", "Tool batch", (Array.isArray(data.tool_calls) ? data.tool_calls : []).map((each) => toolName(each?.tool_name)).join(", ")),
  post_compact: (data) => line("other", "Compaction", oneLine(summaryText(data.compact_summary)), "state"),
  error: (data) => line("error", "Error", oneLine(joined([data.error === "unknown" ? "" : spoken(data.error), said(data.errorDetails ?? data.message)], ": "))),
};
function anyEntry(data) {
  if (data.attention) return asks(data);
  const icon = ACTION_ICONS[data.type] ?? "other";
  return line(["edit", "other"].includes(icon) ? icon : "tool", words(data.type), gist(telling(data)), icon);
}
export const without = ({ seq, type, cursor, eventId, timestamp, ...own }) => own;
/** What every hook of Claude Code says, and so tells nothing. */
const USUAL = ["session_id", "transcript_path", "cwd", "hook_event_name", "permission_mode", "prompt_id", "effort", "agent_id",
  "agent_type", "toolUseId", "tool_use_id", "runId", "threadId", "attentionId", "askId", "orderId"];
export const telling = (data) => Object.fromEntries(Object.entries(without(data)).filter(([name]) => !USUAL.includes(name)));
