/* Elements: made, filled, kept in step with a list; and times as people read them. What agents logged is text: it goes
   through textContent, never through markup. */
import { ago, forPeople, millis } from "./model.js";

export const at = (id) => document.getElementById(id);
export const template = (id) => at(id).content.cloneNode(true);
export const make = (id) => template(id).firstElementChild;
export const slot = (element, name) => element.querySelector(`[data-slot="${name}"]`);

export function say(place, words) { if (place.textContent !== words) place.textContent = words; }
/** Put texts into slots; one without a text is hidden. */
export function fill(element, texts) {
  for (const [name, value] of Object.entries(texts)) {
    const place = slot(element, name), words = forPeople(String(value ?? ""));
    place.hidden = !words;
    if (words) say(place, words);
  }
  return element;
}
/** A new element: its class, then texts and elements to put into it. */
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
export const iconOf = (name) => svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
export function icon(element, name) {
  const use = slot(element, "icon");
  if (use.getAttribute("href") !== `#i-${name}`) use.setAttribute("href", `#i-${name}`);
}
export const link = (href, ...content) => Object.assign(el("a", "", ...content), { href });
export const button = (label, onclick, className = "") => Object.assign(el("button", className, label), { type: "button", onclick });
export const failure = (words, again) => el("div", "failure row", el("span", "grow", words), button("Try again", again));
/** What the keyboard can scroll, by a name. */
export const scrolled = (element, ariaLabel) => Object.assign(element, { tabIndex: 0, ariaLabel, role: element.matches("div") ? "region" : null });

/** Make the children of `parent` those of `items`, by key, moving as few as possible. */
export function sync(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = String(key(item)), child = old.get(name) ?? create(item);
    old.delete(name);
    child.dataset.key = name;
    update(child, item);
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
  for (const child of old.values()) child.remove();
}

export const clock = { ahead: 0, now() { return Date.now() + this.ahead; } };
const time = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
export const hours = new Intl.DateTimeFormat("en-GB", time);
const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", ...time });
export const fullDays = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });
export function timeText(time) {
  const when = typeof time === "number" ? time : millis(time);
  return !Number.isFinite(when) ? "" : (Math.abs(clock.now() - when) < 43_200_000 ? hours : days).format(when);
}
export const since = (time) => ago(clock.now() - millis(time));
/** The keyboard goes to the next or previous of some links. */
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
/** Show in a form's fields what the address says, but in none that a person is at. */
export function showIn(form, values) {
  for (const field of form.elements) if (field.type === "checkbox") field.checked = Boolean(values[field.name]);
    else if (field.name && document.activeElement !== field) field.value = values[field.name] ?? "";
}
/** When it was so many hours ago; "" for no number of them. */
export const hoursAgo = (hours) => hours && new Date(clock.now() - hours * 3_600_000).toISOString();
/** Mark an element as the current one, or not. */
export const setCurrent = (element, isCurrent, kind = "true") => { element.ariaCurrent = isCurrent ? kind : null; };
/** What this browser keeps by a name; with `value`, it is kept from now on. */
export function kept(name, otherwise, value) {
  try { if (value !== undefined) localStorage.setItem(name, JSON.stringify(value)); return JSON.parse(localStorage.getItem(name)) ?? otherwise; } catch { return otherwise; }
}
