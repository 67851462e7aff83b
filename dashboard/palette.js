/* The palette: to a session, or something to do, by a few letters. */
import { asked, query } from "./api.js";
import { createTestSession } from "./doing.js";
import { at, el } from "./dom.js";
import { state } from "./live.js";
import { idOf, joined, nameOf, project } from "./model.js";
import { go } from "./route.js";

const input = at("palette").querySelector("input"), list = at("palette-list");
export const palette = {
  items: [], chosen: 0,
  open() { input.value = ""; this.fill(""); at("palette").showModal(); },
  async fill(words) {
    const sought = words.toLowerCase(), others = [...COMMANDS.filter(({ name }) => name.toLowerCase().includes(sought)), ...(sought ? [searchFor(words)] : [])];
    const here = [...state.cards.values()].filter((card) => JSON.stringify(card).toLowerCase().includes(sought)).slice(0, 8);
    this.show([...here.map(itemOf), ...others]);
    const asking = this.asking = {};
    const { items } = await asked(`api/sessions?${query({ q: words, limit: 8 })}`).catch(() => ({ items: here }));
    if (this.asking === asking) this.show([...items.map(itemOf), ...others]);
  },
  show(items) {
    this.items = items;
    this.chosen = 0;
    list.replaceChildren(...items.map(({ what, name }, number) => {
      const row = el("li", "", el("span", "chip", what), el("span", "cut grow", name));
      row.firstElementChild.dataset.status = what;
      return Object.assign(row, { id: `palette-${number}`, role: "option", onclick: () => this.take(number) });
    }));
    this.move(0);
  },
  move(by) {
    this.chosen = (this.chosen + by + this.items.length) % Math.max(1, this.items.length);
    [...list.children].forEach((row, number) => { row.ariaSelected = number === this.chosen; });
    input.setAttribute("aria-activedescendant", `palette-${this.chosen}`);
    list.children[this.chosen]?.scrollIntoView({ block: "nearest" });
  },
  take(number = this.chosen) { at("palette").close(); this.items[number]?.act(); },
};
const COMMANDS = Object.entries({
  "Home": () => go({}),
  "All sessions": () => go({ view: "sessions" }),
  "Analytics": () => go({ view: "analytics" }),
  "Sessions that wait": () => go({ view: "sessions", query: { status: "waiting" } }),
  "Create a test session": createTestSession,
  "Change the theme": () => at("theme").click(),
  "Keys": () => at("keys").showModal(),
}).map(([name, act]) => ({ name, act, what: "do" }));
const searchFor = (q) => ({ name: `Search for “${q}”`, what: "find", act: () => go({ view: "search", query: { q } }) });
const itemOf = (card) => ({ name: joined([...new Set([nameOf(card), project(card), card.userId, idOf(card)])], "  ·  "), what: card.status,
  act: () => go({ view: "session", id: card.sessionId, tab: "log" }) });

input.oninput = () => palette.fill(input.value.trim());
at("palette").onkeydown = (event) => {
  const act = { ArrowDown: () => palette.move(1), ArrowUp: () => palette.move(-1), Enter: () => palette.take() }[event.key];
  if (act) { event.preventDefault(); act(); }
};
