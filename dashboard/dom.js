/* Elements: made, filled, kept in step with a list; and times as people read them. What agents logged is text: it goes
   through textContent, never through markup. */
import { ago, forPeople, millis } from "./model.js";

export const at = (id) => document.getElementById(id);
export const template = (id) => at(id).content.cloneNode(true);
export const make = (id) => template(id).firstElementChild;
export const slot = (element, name) => element.querySelector(`[data-slot="${name}"]`);

/** Put texts into the slots of an element; null hides the slot. */
export function fill(element, texts) {
  for (const [name, value] of Object.entries(texts)) {
    const place = slot(element, name);
    place.hidden = value === null || value === "";
    const shown = value === true ? true : forPeople(String(value));
    if (!place.hidden && shown !== true && place.textContent !== shown) place.textContent = shown;
  }
  return element;
}
export function el(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.map(fit));
  return element;
}
export const fit = (content) => typeof content === "string" ? forPeople(content) : content;
export function svg(tag, attributes, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, fit(value));
  element.append(...content.map(fit));
  return element;
}
export const icon = (element, name) => { const use = slot(element, "icon");
  if (use.getAttribute("href") !== `#i-${name}`) use.setAttribute("href", `#i-${name}`); };
export function link(href, ...content) { const a = el("a", "", ...content); a.href = href; return a; }
export function button(label, act, className = "") { const b = el("button", className, label); b.type = "button"; b.onclick = act; return b; }

export function failure(words, again) { return el("div", "failure row", el("span", "grow", words), button("Try again", again)); }

/** Make the children of `parent` those of `items`, by key, moving as few as possible. */
export function sync(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = String(key(item));
    const child = old.get(name) ?? create(item);
    old.delete(name);
    child.dataset.key = name;
    update(child, item);
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
  for (const child of old.values()) child.remove();
}

export const clock = { ahead: 0, now() { return Date.now() + this.ahead; } };
export const hours = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const fullDays = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });
export function timeText(time) {
  const when = typeof time === "number" ? time : millis(time);
  if (!Number.isFinite(when)) return "";
  return Math.abs(clock.now() - when) < 43_200_000 ? hours.format(when) : days.format(when);
}
export const since = (time) => ago(clock.now() - millis(time));
export function moveAmong(links, by) {
  const from = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, from < 0 ? 0 : from + by))]?.focus();
}
/** What is in a place, made anew only where it is for another `key`, so that what one presses stays. */
export function refill(place, key, content) {
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...content());
}
export function setCurrent(element, isCurrent, kind = "true") {
  if (isCurrent) element.setAttribute("aria-current", kind); else element.removeAttribute("aria-current");
}
/** What this browser keeps by a name; with `value`, it is kept from now on. */
export function kept(name, otherwise, value) {
  try { if (value !== undefined) localStorage.setItem(name, JSON.stringify(value)); return JSON.parse(localStorage.getItem(name)) ?? otherwise; } catch { return otherwise; }
}
