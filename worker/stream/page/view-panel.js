/**
 * The elements around a live view that the debug page and the dashboard share.
 *
 * Both contain panel.html (#stage, #status-title, #status-text, #status-raw, #status-next, #retry,
 * #notice), #control and #control-holder.
 */

import { byId, setText, setTextOrHide } from "./dom.js";

/** @typedef {import("./live-view.js").Status} Status */

export const JPEG_QUALITY = 8;
export const HAVE_CONTROL = "You have control. Press Esc twice to move the keyboard focus out of the picture.";
const NOTICE_MS = 6000;
const DOUBLE_ESCAPE_MS = 500;

/**
 * Set `data-state`, `data-role` and `data-outcome`, which select the colours in theme.css.
 *
 * @param {HTMLElement} element
 * @param {Status} status
 */
export function markState(element, { state, role, outcome }) {
  element.dataset.state = state;
  element.dataset.role = role ?? "none";
  if (outcome) element.dataset.outcome = outcome;
  else delete element.dataset.outcome;
}

/**
 * Fill the card that explains why there is no live picture.
 *
 * @param {import("./status-text.js").StatusText} text
 */
export function showStatusText(text) {
  setText("status-title", text.title);
  setText("status-text", text.text);
  setTextOrHide("status-raw", text.raw);
  setTextOrHide("status-next", text.next);
  setTextOrHide("retry", text.retry);
}

/** @type {number|undefined} */
let noticeTimer;

/**
 * Show a notice over the picture for some seconds.
 *
 * @param {string} text
 */
export function showNotice(text) {
  clearTimeout(noticeTimer);
  setText("notice", text);
  noticeTimer = setTimeout(() => setText("notice", ""), NOTICE_MS);
}

/**
 * Update the control switch.
 *
 * @param {Status} status
 * @param {boolean|null|undefined} held  whether any viewer has control; null if that is unknown
 */
export function showControl({ state, role, takingControl }, held) {
  const control = byId("control", HTMLButtonElement);
  control.disabled = state !== "connected";
  control.setAttribute("aria-checked", String(role === "control"));
  control.setAttribute("aria-busy", String(takingControl));
  let holder = held === null ? "" : "control is free";
  if (state !== "connected") holder = "";
  else if (role === "control") holder = "you have control";
  else if (takingControl) holder = "requesting control";
  else if (held) holder = "another viewer has control";
  setText("control-holder", holder);
}

/** @param {import("./live-view.js").LiveView} view */
export function toggleControl(view) {
  const { role, takingControl } = view.status;
  if (role === "control" || takingControl) view.releaseControl();
  else view.takeControl();
}

/**
 * While in control the picture receives every key, Tab included; pressing Esc twice moves the focus out.
 *
 * @param {() => import("./live-view.js").LiveView|null} getView
 */
export function leaveWithDoubleEscape(getView) {
  let lastEscapeAt = -Infinity;
  window.addEventListener("keydown", (event) => {
    const { key, repeat, target } = event;
    if (key !== "Escape" || repeat || !(target instanceof Node) || !byId("stage").contains(target)) return;
    const isDouble = event.timeStamp - lastEscapeAt < DOUBLE_ESCAPE_MS;
    lastEscapeAt = event.timeStamp;
    if (!isDouble) return;
    event.stopImmediatePropagation();
    getView()?.releaseKeys();
    byId("control").focus();
  }, { capture: true });
}
