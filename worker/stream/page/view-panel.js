/**
 * What stands around a live view on our own pages: its state in words, and the switch for control.
 *
 * The debug page and the dashboard both have panel.html (#stage, #status-title, #status-text,
 * #status-raw, #status-next, #retry, #notice), and #control and #control-holder.
 */

const CLOSE = { displayLost: 1011, restarting: 1012 };
const TOO_SLOW = "viewer too slow";
const NOTICE_MS = 6000;
const NOVNC_PAUSES_MS = [500, 2000];
const DOUBLE_ESCAPE_MS = 500;

export const $ = (id) => document.getElementById(id);

/**
 * noVNC's RFB; null when noVNC is not there.
 *
 * Asked for again where it was only dropped on its way, as when the machine's network changes.
 */
export async function loadNoVnc() {
  const url = new URL("../novnc/core/rfb.js", import.meta.url);
  for (const pauseMs of [...NOVNC_PAUSES_MS, null]) {
    try {
      return (await import(url)).default;
    } catch {
      const answer = await fetch(url).catch(() => null);
      if (pauseMs === null || answer?.status === 404) return null;
    }
    await new Promise((resolve) => { setTimeout(resolve, pauseMs); });
  }
  return null;
}

/** Only when it changes: a live region reads out whatever is set. */
export function setText(id, text) {
  const element = $(id);
  if (element.textContent !== (text ?? "")) element.textContent = text ?? "";
}

export function setTextOrHide(id, text) {
  setText(id, text);
  $(id).hidden = !text;
}

/** `data-state`, `data-role` and `data-outcome`, by which theme.css colours what is inside. */
export function markState(element, { state, role, outcome }) {
  element.dataset.state = state;
  element.dataset.role = role ?? "none";
  if (outcome) element.dataset.outcome = outcome;
  else delete element.dataset.outcome;
}

/**
 * A view's status in words.
 *
 * @param {import("./live-view.js").Status} status
 * @param {object} known
 * @param {boolean} known.wasConnected  there was a picture before
 * @param {boolean} known.answers       whoever knows about the task does answer
 * @param {string} known.whyWaiting     why there is no stream yet
 * @param {string} [known.next]         what comes after the end
 * @returns {{state: string, title: string, text?: string, raw?: string, retry?: string, next?: string}}
 *   `retry` is the label of the button, where trying again makes sense
 */
export function describe({ state, outcome, code, reason }, known) {
  const raw = code ? `${code} ${reason || "no reason given"}` : reason;
  switch (state) {
    case "waiting":
      return { state: "Waiting", title: "Waiting for the task", text: known.whyWaiting };
    case "connecting":
      return { state: "Connecting", title: "Connecting" };
    case "connected":
      return { state: "Live", title: "Live" };
    case "reconnecting":
      return {
        state: "Reconnecting",
        title: known.wasConnected
          ? "Connection lost, reconnecting" : "No connection yet, trying again",
        text: whyReconnecting(code, reason, known),
        raw,
        retry: "Reconnect now",
      };
    case "ended":
      return {
        state: "Ended",
        title: "Stream ended",
        text: {
          success: "Task succeeded", failed: "Task failed", cancelled: "Task was cancelled",
        }[outcome],
        raw,
        next: known.next,
      };
    case "error":
      if (code === CLOSE.displayLost) {
        return { state: "Error", title: "Display lost", raw, retry: "Try again",
          text: "The task's display is gone, and the session with it." };
      }
      return { state: "Error", title: "No live picture", raw, retry: "Try again",
        text: code ? "The server dropped this viewer." : "The stream cannot be shown." };
    default:
      return { state: "Loading", title: "Loading" };
  }
}

function whyReconnecting(code, reason, { answers, wasConnected }) {
  if (code === CLOSE.restarting) return "The display server is restarting. The task goes on.";
  if (reason === TOO_SLOW) return "This viewer was too slow for the stream. It comes back in a moment.";
  if (!answers) return "The worker does not answer. It may have ended.";
  return wasConnected ? "The connection to the worker broke off." : "";
}

/** Put the words of {@link describe} on the card. */
export function showWords(words) {
  setText("status-title", words.title);
  setText("status-text", words.text ?? "");
  setTextOrHide("status-raw", words.raw);
  setTextOrHide("status-next", words.next);
  setTextOrHide("retry", words.retry);
}

/** `12:05`, or `1:12:05` from an hour on. */
export function clock(totalS) {
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, seconds] = [Math.floor(totalS / 3600), Math.floor(totalS / 60) % 60, totalS % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

let noticeTimer = null;

/** Say something for a while, over the picture. */
export function notify(text) {
  clearTimeout(noticeTimer);
  setText("notice", text);
  noticeTimer = setTimeout(() => setText("notice", ""), NOTICE_MS);
}

/** The switch; `held` says whether anybody has control, null that it is not known. */
export function showControl({ state, role, takingControl = false }, held) {
  const control = $("control");
  control.disabled = state !== "connected";
  control.setAttribute("aria-checked", String(role === "control"));
  control.setAttribute("aria-busy", String(takingControl));
  let holder = held === null ? "" : "nobody has control";
  if (state !== "connected") holder = "";
  else if (role === "control") holder = "you have control";
  else if (takingControl) holder = "asking for control";
  else if (held) holder = "someone else has control";
  setText("control-holder", holder);
}

export function toggleControl(view) {
  const { role, takingControl } = view.status;
  if (role === "control" || takingControl) view.releaseControl();
  else view.takeControl();
}

/** In control the picture takes every key, Tab too, so there has to be a way out of it. */
export function leaveWithDoubleEscape(getView) {
  let lastEscapeAt = -Infinity;
  window.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.repeat || !$("stage").contains(event.target)) return;
    const isDouble = event.timeStamp - lastEscapeAt < DOUBLE_ESCAPE_MS;
    lastEscapeAt = event.timeStamp;
    if (!isDouble) return;
    event.stopImmediatePropagation();
    getView().releaseKeys();
    $("control").focus();
  }, { capture: true });
}
