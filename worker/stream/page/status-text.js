/** The status of a live view in words. */

const CLOSE = { displayLost: 1011, restarting: 1012 };
const TOO_SLOW = "viewer too slow";
const OUTCOME_TEXT = {
  success: "Task succeeded", failed: "Task failed", cancelled: "Task was cancelled",
};

/**
 * What a page knows besides the status.
 *
 * @typedef {object} Context
 * @property {boolean} wasConnected  there was a picture before
 * @property {boolean} answers       the server that reports the task's state answers
 * @property {string} whyWaiting     why there is no stream yet
 * @property {string} [next]         what follows the end of the stream
 *
 * @typedef {object} StatusText
 * @property {string} state    one word
 * @property {string} title
 * @property {string} [text]
 * @property {string} [raw]    the close code and reason
 * @property {string} [retry]  the retry button's label, where a retry can help
 * @property {string} [next]
 */

/**
 * @param {import("./live-view.js").Status} status
 * @param {Context} context
 * @returns {StatusText}
 */
export function describeStatus({ state, outcome, code, reason }, context) {
  const raw = code ? `${code} ${reason || "no reason given"}` : reason;
  switch (state) {
    case "waiting":
      return { state: "Waiting", title: "Waiting for the task", text: context.whyWaiting };
    case "connecting":
      return { state: "Connecting", title: "Connecting" };
    case "connected":
      return { state: "Live", title: "Live" };
    case "reconnecting":
      return {
        state: "Reconnecting",
        title: context.wasConnected ? "Connection lost, reconnecting" : "Not connected yet, retrying",
        text: whyReconnecting(code, reason, context),
        raw,
        retry: "Reconnect now",
      };
    case "ended":
      return {
        state: "Ended",
        title: "Stream ended",
        text: outcome ? OUTCOME_TEXT[outcome] : undefined,
        raw,
        next: context.next,
      };
    case "error":
      if (code === CLOSE.displayLost) {
        return { state: "Error", title: "Display lost", raw, retry: "Try again",
          text: "The task's display was lost and the session failed." };
      }
      return { state: "Error", title: "No live picture", raw, retry: "Try again",
        text: code ? "The server closed this connection." : "The stream cannot be shown." };
    default:
      return { state: "Loading", title: "Loading" };
  }
}

/**
 * @param {number|null} code
 * @param {string} reason
 * @param {Context} context
 */
function whyReconnecting(code, reason, { answers, wasConnected }) {
  if (code === CLOSE.restarting) return "The display server is restarting. The task continues.";
  if (reason === TOO_SLOW) return "This viewer was too slow for the stream. It reconnects shortly.";
  if (!answers) return "The worker does not answer. It may have ended.";
  return wasConnected ? "The connection to the worker was lost." : "";
}
