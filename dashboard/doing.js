/* What a person does: sessions made, ended, tagged, deleted; and what they are asked and told for it. */
import { Refused, asked, of } from "./api.js";
import { at, button, clock, el, slot } from "./dom.js";
import { count } from "./model.js";
import { go } from "./route.js";

export function note(words, isBad = false) {
  const line = el("p", "", words);
  if (isBad) line.dataset.is = "bad";
  at("notes").append(line);
  setTimeout(() => line.remove(), isBad ? 8000 : 4000);
}
export async function attempt(act, done) {
  try { const result = await act(); if (done) note(done); return result ?? true;
    } catch (error) { if (!(error instanceof Refused && error.status === 401)) note(error.message, true); return null; }
}

export async function copy(words) {
  try { await navigator.clipboard.writeText(words); note("Copied."); return; } catch { /* not on this origin: the old way */ }
  const area = el("textarea", "unseen");
  area.value = words;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  note(done ? "Copied." : "It cannot be copied here.", !done);
}

export function askPerson({ title, words = "", fields = [], yes, isDanger = false }) {
  const dialog = at("ask"), form = dialog.querySelector("form");
  at("ask-title").textContent = title;
  dialog.querySelector("p").textContent = words;
  at("ask-fields").replaceChildren(...fields.map(({ name, label, options, offers, isLong, type = "", value = "" }) => {
    const field = options ? el("select", "", ...options.map((option) => new Option(option, option))) : el(isLong ? "textarea" : "input");
    if (type) field.type = type;
    Object.assign(field, { name, value });
    const put = (offer) => button(offer, () => { field.value = offer; field.focus(); });
    return el("div", "", el("label", "", label, field), ...(offers?.length ? [el("div", "row offers", ...offers.map(put))] : []));
  }));
  const [no, ok] = form.lastElementChild.children;
  ok.textContent = yes;
  ok.classList.toggle("danger", isDanger);
  return new Promise((answer) => {
    const finish = (value) => { dialog.close(); answer(value); };
    form.onsubmit = (event) => { event.preventDefault(); finish(Object.fromEntries(new FormData(form))); };
    no.onclick = () => finish(null);
    dialog.oncancel = () => answer(null);
    dialog.showModal();
    if (isDanger) no.focus();
  });
}

export async function createTestSession() {
  if (!await askPerson({ title: "Create a test session?", words: "It is made in this store, beside those of agents, with the tag test.", yes: "Create" })) return;
  const id = `test-${Math.floor(clock.now() / 1000)}-${Math.random().toString(36).slice(2, 6)}`;
  const body = { sessionId: id, userId: "dashboard", initial: { input: "A test session, made from the dashboard" }, tags: ["test"] };
  if (await attempt(() => asked("api/sessions", { method: "POST", body }), "The session was created.")) go({ view: "session", id,
    tab: "log" });
}
export async function finalize(session) {
  const said = await askPerson({ title: "End this session?", words: "Words that come later are kept, but do not reopen it.",
    yes: "Finalize", fields: [{ name: "status", label: "Status", options: ["success", "failed", "cancelled"] },
    { name: "outcome", label: "Outcome" }] });
  if (said && await attempt(() => asked(of(session.id, "/finalize"), { method: "POST", body: said }),
    "The session was ended.")) session.read();
}
const setMetadata = async (session, body, done) => {
  if (await attempt(() => asked(of(session.id, "/metadata"), { method: "PATCH", body }), done)) session.read();
};
/** The name becomes a field in its place: Enter keeps what is in it, Escape leaves it. A person's name stays, whatever the agent says. */
export function rename(session) {
  const heading = slot(session.root, "name"), field = el("input", "rename");
  if (heading.nextElementSibling.matches(".rename")) return;
  Object.assign(field, { value: heading.textContent, ariaLabel: "Name", maxLength: 500 });
  field.onkeydown = (event) => {
    if (event.key === "Enter") setMetadata(session, { title: field.value.trim() || null }, "The name was saved.");
    if (["Enter", "Escape"].includes(event.key)) { event.stopPropagation(); field.onblur = null; field.remove(); }
  };
  field.onblur = () => field.remove();
  heading.after(field);
  field.select();
}
export const pin = (session) => setMetadata(session, { pinned: session.document.metadata.pinned !== true });
export async function addNote(session) {
  const said = await askPerson({ title: "Add a note", words: "For people who look at this session; the agent does not see it.", yes: "Add",
    fields: [{ name: "text", label: "Note" }] });
  if (said?.text.trim()) await attempt(() => asked(of(session.id, "/notes"), { method: "POST", body: said }), "The note was added.");
}
export async function editTags(session) {
  const said = await askPerson({ title: "Tags", words: "With commas between them.", yes: "Save",
    fields: [{ name: "tags", label: "Tags", value: (session.document.metadata.tags ?? []).join(", ") }] });
  if (!said) return;
  const tags = [...new Set(said.tags.split(",").map((tag) => tag.trim()).filter(Boolean))];
  await setMetadata(session, { tags }, "The tags were saved.");
}
export async function deleteSession(session) {
  const { actions, responses } = session.document.metadata;
  const said = await askPerson({ title: `Delete ${session.id}?`,
    words: `All that it logged goes, ${count(actions + responses)} entries, from the database, the file tree and search. This cannot be undone.`, yes: "Delete", isDanger: true });
  if (said && await attempt(() => asked(of(session.id), { method: "DELETE" }), "The session was deleted.")) go({ view: "home" },
    { replace: true });
}
