/* What a person does: sessions made, ended, tagged, deleted; and what they are asked and told for it. */
import { Refused, fetched, of, told } from "./api.js";
import { at, button, clock, el, slot } from "./dom.js";
import { count } from "./model.js";
import { go } from "./route.js";

export function note(words, isBad = false) {
  const line = el("p", "", words);
  if (isBad) line.dataset.is = "bad";
  at("notes").append(line);
  setTimeout(() => line.remove(), isBad ? 8000 : 4000);
}
/** What an act gives; where it cannot be done, that is said, and it gives null. */
export async function attempt(act, done) {
  try { const result = await act(); if (done) note(done); return result ?? true;
    } catch (error) { if (!(error instanceof Refused && error.status === 401)) note(error.message, true); return null; }
}

export async function copy(words) {
  try { await navigator.clipboard.writeText(words); note("Copied."); return; } catch { /* not on this origin: the old way */ }
  const area = Object.assign(el("textarea", "unseen"), { value: words });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  note(done ? "Copied." : "It cannot be copied here.", !done);
}

/** Ask a person; what they said by field, or null. */
export function askPerson({ title, words = "", fields = [], yes, isDanger = false }) {
  const dialog = at("ask"), form = dialog.querySelector("form"), [no, ok] = form.lastElementChild.children;
  at("ask-title").textContent = title;
  dialog.querySelector("p").textContent = words;
  at("ask-fields").replaceChildren(...fields.map(({ name, label, options, offers = [], isLong, type, value = "" }) => {
    const field = options ? el("select", "", ...options.map((option) => new Option(option))) : el(isLong ? "textarea" : "input");
    if (type) field.type = type;
    Object.assign(field, { name, value: value || field.value });
    const put = (offer) => button(offer, () => { field.value = offer; field.focus(); });
    return el("div", "", el("label", "", label, field), el("div", "row offers", ...offers.map(put)));
  }));
  ok.textContent = yes;
  ok.classList.toggle("danger", isDanger);
  no.onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.showModal();
  if (isDanger) no.focus();
  return new Promise((answer) => { dialog.onclose = () => answer(dialog.returnValue ? Object.fromEntries(new FormData(form)) : null); });
}

export async function createTestSession() {
  if (!await askPerson({ title: "Create a test session?", words: "It is made in this store, beside those of agents, with the tag test.", yes: "Create" })) return;
  const id = `test-${Math.floor(clock.now() / 1000)}-${Math.random().toString(36).slice(2, 6)}`;
  const body = { sessionId: id, userId: "dashboard", initial: { input: "A test session, made from the dashboard" }, tags: ["test"] };
  if (await attempt(() => told("api/sessions", body), "The session was created.")) go({ view: "session", id, tab: "log" });
}
export async function finalize(session) {
  const said = await askPerson({ title: "End this session?", words: "Words that come later are kept, but do not reopen it.", yes: "Finalize",
    fields: [{ name: "status", label: "Status", options: ["success", "failed", "cancelled"] }, { name: "outcome", label: "Outcome" }] });
  if (said && await attempt(() => told(of(session.id, "/finalize"), said), "The session was ended.")) session.read();
}
async function setMetadata(session, body, done) {
  if (await attempt(() => told(of(session.id, "/metadata"), body, "PATCH"), done)) session.read();
}
/** The name becomes a field in its place: Enter keeps what is in it, Escape leaves it. A person's name stays, whatever the agent says. */
export function rename(session) {
  const heading = slot(session.root, "name"), field = el("input", "rename");
  if (heading.nextElementSibling.matches(".rename")) return;
  Object.assign(field, { value: heading.textContent, ariaLabel: "Name", maxLength: 500, onblur: () => field.remove() });
  field.onkeydown = (event) => {
    if (event.key === "Enter") setMetadata(session, { title: field.value.trim() || null }, "The name was saved.");
    if (["Enter", "Escape"].includes(event.key)) { event.stopPropagation(); field.onblur = null; field.remove(); }
  };
  heading.after(field);
  field.select();
}
export const pin = (session) => setMetadata(session, { pinned: session.document.metadata.pinned !== true });
export async function addNote(session) {
  const said = await askPerson({ title: "Add a note", words: "For people who look at this session; the agent does not see it.", yes: "Add", fields: [{ name: "text", label: "Note" }] });
  if (said?.text.trim()) await attempt(() => told(of(session.id, "/notes"), said), "The note was added.");
}
export async function editTags(session) {
  const said = await askPerson({ title: "Tags", words: "With commas between them.", yes: "Save",
    fields: [{ name: "tags", label: "Tags", value: (session.document.metadata.tags ?? []).join(", ") }] });
  if (said) await setMetadata(session, { tags: [...new Set(said.tags.split(",").map((tag) => tag.trim()).filter(Boolean))] }, "The tags were saved.");
}
export async function deleteSession(session) {
  const { actions, responses } = session.document.metadata;
  const said = await askPerson({ title: `Delete ${session.id}?`, yes: "Delete", isDanger: true,
    words: `All that it logged goes, ${count(actions + responses)} entries, from the database, the file tree and search. This cannot be undone.` });
  if (said && await attempt(() => fetched(of(session.id), { method: "DELETE" }), "The session was deleted.")) go({}, { replace: true });
}
