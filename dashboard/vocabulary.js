/* What server and page both go by: the server's own lists. A test holds this file to them. */
export default {
  "ended": ["completed", "failed", "cancelled"],
  "logs": ["action", "response"],
  "noStep": ["prompt", "message_display", "notification", "post_tool_batch", "instructions_loaded"],
  "failures": ["tool_error", "error", "permission_denied"],
  "notWanted": ["The user doesn't want to ", "[Request interrupted by user", "Request interrupted by user", "Tool use rejected", "User rejected"],
  "machineMade": ["<task-notification>", "<command-name>", "<command-message>", "<local-command-", "<system-reminder>"],
  "brief": {"characters": 300, "members": 40, "items": 5, "depth": 4}
};
