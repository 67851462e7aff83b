/* What server and page both go by: the server's own lists. A test holds this file to them. */
export default {
  "statuses": ["active", "waiting", "completed", "failed", "cancelled", "lost"],
  "ended": ["completed", "failed", "cancelled"],
  "eventTypes": ["session_created", "session_resumed", "metadata_updated", "session_finalized", "session_lost", "session_deleted", "action", "response", "state_updated", "goal_added", "goal_updated", "agent_spawned", "agent_updated", "agent_completed", "note_added", "usage_reported", "budget_crossed", "answered", "ask_closed", "ordered", "order_delivered", "order_closed"],
  "logs": ["action", "response"],
  "noStep": ["prompt", "message_display", "notification", "post_tool_batch", "instructions_loaded"],
  "failures": ["tool_error", "error", "permission_denied"],
  "notWanted": ["The user doesn't want to ", "[Request interrupted by user", "Request interrupted by user", "Tool use rejected", "User rejected"],
  "machineMade": ["<task-notification>", "<command-name>", "<command-message>", "<local-command-", "<system-reminder>"],
  "brief": {"characters": 300, "members": 40, "items": 5, "depth": 4}
};
