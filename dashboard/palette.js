/* The palette: to a session, or something to do, by a few letters. */
import { asked, query } from "./api.js";
import { createTestSession } from "./doing.js";
import { at, el } from "./dom.js";
import { state } from "./live.js";
import * as Model from "./model.js";
import { go } from "./route.js";

export const palette = {
  items: [], chosen: 0,
  open() { const input = at("palette").querySelector("input"); input.value = ""; this.fill(""); at("palette").showModal(); input.focus(); },
  async fill(words) {
    const sought = words.trim().toLowerCase(), others = [...commandsFor(sought), ...(sought ? [searchFor(words.trim())] : [])];
    const here = [...state.cards.values()].filter((card) => JSON.stringify(card).toLowerCase().includes(sought)).slice(0, 8);
    this.show([...here.map(itemOf), ...others]);
    const asking = this.asking = {};
    const { items } = await asked(`api/sessions?${query({ q: words.trim(), limit: 8 })}`).catch(() => ({ items: here }));
    if (this.asking === asking) this.show([...items.map(itemOf), ...others]);
  },
  show(items) {
    this.items = items;
    this.chosen = 0;
    at("palette-list").replaceChildren(...items.map((item, number) => {
      const row = el("li", "", el("span", "chip", item.what), el("span", "cut grow", item.name));
      row.id = `palette-${number}`;
      row.setAttribute("role", "option");
      row.firstElementChild.dataset.status = item.what;
      row.onclick = () => this.take(number);
      return row;
    }));
    this.mark();
  },
  mark() {
    [...at("palette-list").children].forEach((row, number) => row.setAttribute("aria-selected", String(number === this.chosen)));
    at("palette").querySelector("input").setAttribute("aria-activedescendant", `palette-${this.chosen}`);
    at("palette-list").children[this.chosen]?.scrollIntoView({ block: "nearest" });
  },
  move(by) { this.chosen = (this.chosen + by + this.items.length) % Math.max(1, this.items.length); this.mark(); },
  take(number = this.chosen) { at("palette").close(); this.items[number]?.act(); },
};
const COMMANDS = [
  ["Home", () => go({ view: "home" })],
  ["All sessions", () => go({ view: "sessions", query: {} })],
  ["Analytics", () => go({ view: "analytics", query: {} })],
  ["Sessions that wait", () => go({ view: "sessions", query: { status: "waiting" } })],
  ["Create a test session", createTestSession],
  ["Change the theme", () => at("theme").click()],
  ["Keys", () => at("keys").showModal()],
];
const commandsFor = (sought) => COMMANDS.filter(([name]) => name.toLowerCase().includes(sought)).map(([name, act]) => ({ name, act, what: "do" }));
const searchFor = (words) => ({ name: `Search for “${words}”`, what: "find", act: () => go({ view: "search", query: { q: words } }) });
const itemOf = (card) => ({ name: [...new Set([Model.nameOf(card), Model.project(card), card.userId, Model.idOf(card)])].filter(Boolean).join("  ·  "), what: card.status,
  act: () => go({ view: "session", id: card.sessionId, tab: "log" }) });

at("palette").querySelector("input").oninput = (event) => palette.fill(event.target.value);
at("palette").onkeydown = (event) => {
  const act = { ArrowDown: () => palette.move(1), ArrowUp: () => palette.move(-1), Enter: () => palette.take() }[event.key];
  if (act) { event.preventDefault(); act(); }
};
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click",
  (event) => { if (event.target === dialog && dialog.id !== "ask") dialog.close(); });
