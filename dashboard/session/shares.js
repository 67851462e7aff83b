/* Links by which anybody may read one session, until they end. */
import { asked, fetched, of, query, told } from "../api.js";
import { attempt, copy } from "../doing.js";
import { button, el, timeText } from "../dom.js";
import { text } from "../model.js";

const LASTING = { "an hour": 3600, "a day": 86_400, "a week": 604_800, "30 days": 2_592_000 };

/** A dialog: what links there are, each to be taken back; a new one, whose address is shown once. */
export async function share({ id }) {
  const path = of(id, "/shares"), list = el("ul"), fresh = el("p", "mono"), long = el("select", "", ...Object.entries(LASTING).map(([words, seconds]) => new Option(words, seconds)));
  long.value = LASTING["a week"];
  const dialog = Object.assign(el("dialog", "", el("form", "", el("h2", "", "Share this session"), el("p", "dim", "Whoever has the link may read this one session, and nothing else, until it ends or is taken back."),
    list, el("label", "", "Ends after", long), fresh, el("div", "row", button("Close", () => dialog.close()), button("Make a link", make, "main")))), { ariaLabel: "Share this session", onclose: () => dialog.remove() });
  document.body.append(dialog);
  dialog.showModal();
  await show();
  async function show() {
    const found = await attempt(() => asked(path)), takeBack = async (shareId) => { await attempt(() => fetched(`${path}?${query({ shareId })}`, { method: "DELETE" }), "The link was taken back."); await show(); };
    list.replaceChildren(...(found?.items ?? []).map((each) => el("li", "row", el("span", "grow", `until ${timeText(each.expires)}${each.by ? `, by ${text(each.by)}` : ""}`),
      button("Take back", () => takeBack(each.shareId), "danger"))));
  }
  async function make() {
    const made = await attempt(() => told(path, { expires: Number(long.value) }));
    if (!made) return;
    const address = new URL(made.fragment, location.href).href;
    fresh.replaceChildren(address, " ", button("Copy", () => copy(address)));
    await show();
  }
}
