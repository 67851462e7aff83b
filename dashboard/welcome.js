/* The first minute: the ways in, with this store's own address and token file, to copy; it listens until the first event. */
import { copy, createTestSession } from "./doing.js";
import { button, el, link } from "./dom.js";

/** Where agents' tokens are, where the store wants one. */
const tokenFile = ({ tokens, storage }) => tokens ? `${storage}/tokens/ingest` : "";
function ways(server) {
  const url = new URL(".", location.href.split("#")[0]).href.replace(/\/$/, ""), file = tokenFile(server);
  return [
    ["Claude Code", `curl -O ${url}/hook_agent.py\npython3 hook_agent.py install --url ${url} --user "$USER"${file ? ` --token-file ${file}` : ""}`],
    ["Python", `${file ? `# SESSION_SERVICE_TOKEN=$(cat ${file})\n` : ""}from hook_agent import SessionHookAgent\n\nagent = SessionHookAgent(service_url="${url}", session_id="my-first")\nagent.log_action({"type": "note", "text": "hello"})\nagent.close()`],
    ["curl", `curl ${url}/api/actions/my-first \\\n  ${file ? `-H "authorization: Bearer $(cat ${file})" ` : ""}-H content-type:application/json \\\n  -d '{"type": "note", "text": "hello"}'`],
  ];
}
export function drawWelcome(server) {
  return el("div", "welcome", el("h2", "", "Three ways in"), el("p", "dim", "No sessions yet. The first word of an agent makes one, and it appears here."),
    ...ways(server ?? {}).map(([name, words]) => el("section", "", el("div", "row", el("h3", "grow", name), button("Copy", () => copy(words), "plain")), Object.assign(el("pre", "code", words), { tabIndex: 0 }))),
    el("p", "listening", "Listening …"), el("p", "dim", el("span", "writes", "Or ", button("Create a test session", createTestSession, "plain"), " "), "The ", link("schema", "API"), " says the rest."));
}
