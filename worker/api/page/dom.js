/** Small things for drawing: elements whose content is only ever text, and times in words. */

import { clock } from "../live/view-panel.js";

/**
 * Make an element. Strings become text nodes, so nothing that a task says is ever markup.
 *
 * @param {string} tag
 * @param {object} [attributes]  `class`, `href`, `aria-…`, `data-…`; `null` leaves one out
 * @param {...(Node|string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set a text only when it changes: selections survive, and live regions stay quiet. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make a parent's children these, in this order, and touch only what differs: focus stays.
 *
 * @param {Element} parent
 * @param {Array<object>} items
 * @param {(item: object) => string} key
 * @param {(item: object) => Element} create
 * @param {(element: Element, item: object) => void} update
 */
export function sync(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const element = old.get(name) ?? create(item);
    old.delete(name);
    element.dataset.key = name;
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of old.values()) element.remove();
}

/** "just now", "5 min ago", "3 h ago", then the date. */
export function ago(time, now = Date.now()) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** Date and time, as the reader's language has them. */
export function moment(time) {
  return Number.isNaN(Date.parse(time ?? "")) ? "–" : new Date(time).toLocaleString();
}

/** Seconds between two times; up to now while there is no end. */
export function elapsedS({ started_at: start, finished_at: end }) {
  const from = Date.parse(start ?? "");
  if (Number.isNaN(from)) return null;
  return Math.max(0, Math.floor(((end ? Date.parse(end) : Date.now()) - from) / 1000));
}

/** "0.4 s" for what was short, else as a clock has it. */
export function duration(task) {
  const seconds = (Date.parse(task.finished_at ?? "") - Date.parse(task.started_at ?? "")) / 1000;
  if (Number.isNaN(seconds)) return "–";
  return seconds < 60 ? `${Math.max(0.1, seconds).toFixed(1)} s` : clock(Math.floor(seconds));
}

/** "12 B", "3.4 kB", "1.2 MB". */
export function size(bytes) {
  if (!Number.isFinite(bytes)) return "";
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
