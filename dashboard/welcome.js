/* The first minute: the ways in, with this store's own address and token file, to copy; it listens until the first event. */
import { copy, createTestSession } from "./doing.js";
import { button, el, link } from "./dom.js";

function ways({ tokens, storage }) {
  const url = new URL(".", location.href.split("#")[0]).href.replace(/\/$/, ""), file = tokens ? `${storage}/tokens/ingest` : "";
  const settings = `export SESSION_SERVICE_URL=${url} SESSION_USER_ID=$USER${file ? ` SESSION_TOKEN_FILE=${file}` : ""}\n`;
  return [
    ["Claude Code", `for part in "" _install _facts _ship; do curl -sO ${url}/hook_agent$part.py; done\n${settings}python3 hook_agent.py install`],
    ["Python", `curl -sO ${url}/hook_agent.py\n${settings}SESSION_ID=first-python python3 - <<'END'\nfrom hook_agent import SessionHookAgent\nSessionHookAgent().sync.log_action({"type": "note", "text": "hello"})\nEND\npython3 hook_agent.py flush`],
    ["curl", `curl -s ${url}/api/actions/first-curl -H content-type:application/json ${file ? `-H "authorization: Bearer $(cat ${file})" ` : ""}-d '{"type": "note", "text": "hello"}'`],
  ];
}
export function drawWelcome(server) {
  return el("div", "welcome", el("h2", "", "Three ways in"), el("p", "dim", "No sessions yet. The first word of an agent makes one, and it appears here."),
    ...ways(server ?? {}).map(([name, words]) => el("section", "", el("div", "row", el("h3", "grow", name), button("Copy", () => copy(words), "plain")), Object.assign(el("pre", "code", words), { tabIndex: 0 }))),
    el("p", "listening", "Listening …"), el("p", "dim", el("span", "writes", "Or ", button("Create a test session", createTestSession), " "), "The ", link("schema", "API"), " says the rest."));
}
