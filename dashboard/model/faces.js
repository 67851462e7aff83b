/* What an event is, in a line: its kind, icon, title and text; and whether it says that something went wrong. */
import vocabulary from "../vocabulary.js";
import { first, isNothing, isObject, oneLine, plain, said, shortId, spoken, text } from "./words.js";

const TOOL_ICONS = { __proto__: null, Bash: "terminal", BashOutput: "terminal", KillShell: "terminal", Read: "file", Write: "edit",
  Edit: "edit", MultiEdit: "edit", NotebookEdit: "edit", Glob: "search", Grep: "search", WebFetch: "web", WebSearch: "web", Agent: "agent",
  Task: "agent", TodoWrite: "goal", TaskCreate: "goal", TaskUpdate: "goal", TaskList: "goal", AskUserQuestion: "wait", ExitPlanMode: "wait"
  };
const ACTION_ICONS = { __proto__: null, bash_exec: "terminal", file_write: "edit", file_edit: "edit", file_read: "file", mcp_call: "mcp",
  task_spawn: "agent", web_fetch: "web", web_search: "web" };
const EDITS = ["Write", "Edit", "MultiEdit", "NotebookEdit"];
/** Entries that say nothing which others do not say as well. */
export const MINOR = ["post_tool_batch", "instructions_loaded", "metadata_updated"];
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
  if (tool === "Grep") return oneLine([first(input, "pattern"), first(input, "path", "glob")].filter(Boolean).join(" in "));
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
export function isError(event) {
  const { type, data } = event;
  if (type === "session_lost") return true;
  if (isRejected(event)) return false;
  if (vocabulary.failures.includes(data.type) && vocabulary.logs.includes(type)) return true;
  return data.ok === false || data.success === false || data.status === "failed" || (Number(data.exitCode) || 0) !== 0
    || !isNothing(data.error);
}
/** What is said beside a mere kind of error, as Claude Code names rate_limit. */
const detailOf = (data) => /^[a-z]+(?:_[a-z]+)*$/.test(text(data.error)) ? first(data, "message", "errorDetails") : "";
/** The first line of what an entry says went wrong; with the second, where the first is no more than an exit code. */
export function errorLine({ data }) {
  const whole = detailOf(data) || (typeof data.error === "string" ? data.error : first(data.error, "message", "error", "detail", "type")
    || (isNothing(data.error) ? first(data, "errorDetails", "reason", "message") : said(data.error)));
  const [one = "", two = ""] = plain(whole).replace(/<\/?tool_use_error>/g, "").split("\n").map((line) => line.trim()).filter(Boolean);
  return oneLine(/^exit code \d+$/i.test(one) && two ? `${one}: ${two}` : one)
    || (Number(data.exitCode) ? `exit code ${data.exitCode}` : "");
}

/** Whether a prompt is a machine's word and no person's: one says so, or begins with a tag that Claude Code writes. */
export const isMachineMade = (data) => data.machineMade === true
  || begins(first(data, ...PROMPTS), vocabulary.machineMade);
export const PROMPTS = ["prompt", "text", "content", "message"];
function noticeText(data) {
  const whole = first(data, ...PROMPTS), part = (name) => new RegExp(`<${name}>([^]*?)</${name}>`).exec(whole)?.[1].trim() ?? "";
  return oneLine(part("summary") || [part("command-name"), part("command-args")].filter(Boolean).join(" ")
    || whole.replace(/<[^<>]{0,200}>/g, " "));
}
export const summaryText = (value) => text(value).replace(/<analysis>[^]*?<\/analysis>|<\/?(?:analysis|summary)>/g, "").trim();
/** Whether an agent is none that anybody spawned: Claude Code's own, which compacts a conversation. */
export const isInternal = (agent) => agent.type === "internal" || agent.type === "";
export const isCompaction = ({ type, data }) => type === "agent_completed" && isInternal(data);
/** An agent's name: the task of one of Claude Code's, which says in a few words what it is for; its type where that says
    something; else the last part of its id, as a node of a graph has it. */
export const agentName = ({ agentId, type, task, hook_event_name: hook }) => hook && text(task).trim() ? oneLine(task) : ["", "agent", "subagent"].includes(text(type))
  ? shortId(text(agentId)).split(".").at(-1).replace(/^([0-9a-f]{8})[0-9a-f]{6,}$/, "$1") || "agent" : said(type);

/** What is known of agents and goals by their ids; `of` gives what others have said of one. */
export const NAMES = new Map();
/** The names with those that an event tells. A goal's update does not say what the goal is, nor an agent's end whose. */
export function named(names, { type, sessionId, data }) {
  const id = type.startsWith("goal") ? data.id ?? data.goalId : type.startsWith("agent") ? data.agentId : null;
  const name = id === null ? "" : type.startsWith("goal") ? gist(data.description) : data.agentId && text(data.task).trim() && data.hook_event_name ? agentName(data) : text(data.type);
  const key = `${sessionId} ${id}`;
  if (name && names.get(key) !== name) { names.set(key, name); if (names.size > 2000) names.delete(names.keys().next().value); }
  return names;
}

/** An event as {kind, icon, title, text}: kind chooses the colour. */
export function face(event, names = NAMES) {
  const { data } = event, known = (id) => names.get(`${event.sessionId} ${id}`);
  const own = FACES[event.type]?.(data, known, event) ?? { kind: "other", icon: "other", title: words(event.type), text: gist(data) };
  return isError(event) && !["tool", "edit"].includes(own.kind) ? { ...own, kind: "error", icon: "error" } : own;
}

const FACES = {
  __proto__: null,
  action: (data) => (ENTRIES[data.type] ?? anyEntry)(data),
  response: (data) => (ENTRIES[data.type] ?? anyEntry)(data),
  session_created: (data) => ({ kind: "session", icon: "session", title: "Session created",
    text: gist(data.initial?.input ?? data.metadata?.source ?? "") }),
  session_resumed: (data) => ({ kind: "session", icon: "session", title: "Session resumed", text: gist(data.metadata?.source ?? "") }),
  session_finalized: (data) => ({ kind: "session", icon: "session", title: ENDED_AS[data.status] ?? "Session ended", text: endText(data) }),
  session_lost: () => ({ kind: "error", icon: "error", title: "Session lost", text: "no word for too long" }),
  session_deleted: (data) => ({ kind: "session", icon: "session", title: "Session deleted",
    text: [data.by && `by ${data.by}`, data.reason === "person" ? "" : text(data.reason)].filter(Boolean).join(", ") }),
  metadata_updated: (data) => data.attention ? asks(data) : { kind: "session", icon: "session", title: "Metadata", text: said(data) },
  state_updated: (data) => ({ kind: "state", icon: "state", title: "State",
    text: oneLine([text(data.phase), text(data.currentStep)].filter(Boolean).join(": ") || JSON.stringify(data)) }),
  goal_added: (data) => ({ kind: "goal", icon: "goal", title: "Goal", text: gist(data.description) }),
  goal_updated: (data, known) => ({ kind: "goal", icon: "goal", title: `Goal ${spoken(data.status) || "changed"}`,
    text: gist(data.description) || known(data.goalId) || "" }),
  agent_spawned: (data) => ({ kind: "agent", icon: "agent", title: `${agentName(data)} begins`,
    text: data.hook_event_name ? text(data.type) : readable(data.task) }),
  agent_updated: (data, known, event) => ({ kind: "agent", icon: "agent", text: readable(data.task ?? data.result),
    title: `${agentOf(data, known, event)} ${AGENT_WORDS[data.status] ?? (spoken(data.status) || "changed")}` }),
  agent_completed: (data, known, event) => isCompaction(event)
    ? { kind: "other", icon: "state", title: "Compaction", text: oneLine(summaryText(data.result)) }
    : { kind: "agent", icon: "agent", title: `${agentOf(data, known, event)} ${spoken(data.status) || "completed"}`, text: readable(data.result) },
  note_added: (data) => ({ kind: "session", icon: "session", title: "Note", text: gist(data.text) }),
  usage_reported: (data) => ({ kind: "session", icon: "session", title: "Usage", text: said(data) }),
  budget_crossed: (data) => ({ kind: "error", icon: "error", title: "Budget crossed", text: said(data) }),
  answered: (data) => ({ kind: "session", icon: "session", title: "Answered", text: gist(data.message ?? data.decision) }),
  ask_closed: (data) => ({ kind: "session", icon: "session", title: "Ask closed", text: said(data) }),
  ordered: (data) => ({ kind: "session", icon: "session", title: "Order", text: said(data) }),
  order_delivered: (data) => ({ kind: "session", icon: "session", title: "Order delivered", text: said(data) }),
  order_closed: (data) => ({ kind: "session", icon: "session", title: "Order closed", text: said(data) }),
};
const AGENT_WORDS = { __proto__: null, running: "begins again", paused: "pauses" };
const agentOf = (data, known, event) => agentName({ agentId: data.agentId ?? event.agentId, type: data.type ?? known(data.agentId ?? event.agentId) });
const ENDED_AS = { __proto__: null, failed: "Session failed", cancelled: "Session cancelled" };
const REASONS = { __proto__: null, prompt_input_exit: "left at the prompt", clear: "the conversation was cleared", logout: "logged out",
  resume: "another conversation was resumed", bypass_permissions_disabled: "permissions may not be bypassed" };
export const reasonText = (reason) => REASONS[text(reason)] ?? spoken(reason);
/** Why something has ended, in words: what came of it, what went wrong, or the reason that was given. */
export const endText = (data) => oneLine(text(data.outcome)) || (isNothing(data.error) ? "" : errorLine({ data })) || reasonText(data.reason)
  || said(data.response ?? data.finalResponse) || (Number(data.exitCode) ? `exit code ${data.exitCode}` : "");
/** What tells most of a task or result, which graphs give as JSON. */
function readable(value) {
  if (typeof value !== "string" || !/^\s*[[{]/.test(value)) return said(value);
  try { return gist(JSON.parse(value)); } catch { return oneLine(value); }
}
const ASKS = { __proto__: null, permission: "Asks for permission", question: "Asks a question", plan: "Asks about a plan" };
function asks(data) {
  return { kind: "wait", icon: "wait", title: ASKS[data.attention?.reason] ?? "Waits for a person",
    text: oneLine(text(data.attention?.message) || gist(data)) };
}
function call(data) {
  const kind = EDITS.includes(data.tool) ? "edit" : ["Agent", "Task"].includes(data.tool) ? "agent" : "tool";
  const icon = TOOL_ICONS[data.tool] ?? (text(data.tool).startsWith("mcp__") ? "mcp" : "other");
  return { kind, icon, title: toolName(data.tool), text: toolGist(data.tool, data.input) };
}
export const ENTRIES = {
  __proto__: null,
  prompt: (data) => isMachineMade(data) ? { kind: "notice", icon: "state", title: "System notice", text: noticeText(data) }
    : { kind: "prompt", icon: "prompt", title: "Prompt", text: plain(first(data, ...PROMPTS)) || gist(data) },
  assistant_message: (data) => ({ kind: "answer", icon: "says", title: "Answer",
    text: plain(contentText(data.message ?? data.content ?? data.text)) }),
  message_display: (data) => ({ kind: "says", icon: "says", title: "Says", text: plain(data.delta) }),
  tool_call: call,
  tool_result: (data) => data.tool ? call(data)
    : { kind: "tool", icon: "other", title: "Result", text: gist(data.output ?? without(data)) },
  tool_error: (data) => data.tool ? call(data) : { kind: "tool", icon: "other", title: "Failed", text: said(data.error) },
  permission_request: asks,
  elicitation: asks,
  notification: (data) => data.attention ? asks(data) : { kind: "other", icon: "other", title: "Notification", text: gist(data.message) },
  post_tool_batch: (data) => ({ kind: "other", icon: "other", title: "Tool batch",
    text: (Array.isArray(data.tool_calls) ? data.tool_calls : []).map((each) => toolName(each?.tool_name)).join(", ") }),
  post_compact: (data) => ({ kind: "other", icon: "state", title: "Compaction", text: oneLine(summaryText(data.compact_summary)) }),
  error: (data) => ({ kind: "error", icon: "error", title: "Error",
    text: oneLine([data.error === "unknown" ? "" : spoken(data.error), said(data.errorDetails ?? data.message)].filter(Boolean).join(": ")) }),
};
function anyEntry(data) {
  if (data.attention) return asks(data);
  const icon = ACTION_ICONS[data.type] ?? "other";
  return { kind: icon === "edit" ? "edit" : icon === "other" ? "other" : "tool", icon, title: words(data.type), text: gist(telling(data)) };
}
export const without = ({ seq, type, cursor, eventId, timestamp, ...own }) => own;
/** What every hook of Claude Code says, and so tells nothing. */
const USUAL = ["session_id", "transcript_path", "cwd", "hook_event_name", "permission_mode", "prompt_id", "effort", "agent_id",
  "agent_type", "toolUseId", "tool_use_id", "runId", "threadId", "attentionId", "askId"];
export const telling = (data) => Object.fromEntries(Object.entries(without(data)).filter(([name]) => !USUAL.includes(name)));
