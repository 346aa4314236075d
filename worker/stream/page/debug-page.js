/**
 * The page for local debugging: one live view, with what is known about its task around it.
 *
 * Stable for tests and user scripts:
 *
 *   <html data-state>    loading | waiting | connecting | connected | reconnecting | ended | error
 *   <html data-outcome>  success | failed | cancelled; only once the task ended
 *   <html data-role>     view | control | none: the role of the live connection
 *   #state               the state in one word
 *   #status-title, #status-text, #status-raw
 *                        why there is no live picture: "Stream ended", "Task succeeded", and the
 *                        close code with the server's reason ("1000 task success")
 *   #retry               retry now (only where a retry can help)
 *   #target, #task-id, #elapsed, #viewer-count
 *                        what runs (`data-task-id` on #task-id), for how long, how many viewers
 *   #control             the switch (aria-checked); #control-holder names the holder of control
 *   #clipboard-toggle, #clipboard, #paste-text, #paste, #copied-text, #copy
 *                        both directions of the clipboard, while having control
 *   #fullscreen, #notice
 *   #stage [data-layer="live"] canvas    the live picture, 1920×1080 inside
 *   #stage [data-layer="still"] canvas   the last picture of a closed connection
 */

import { ClipboardPanel, copyText } from "./clipboard-panel.js";
import { byId, setText, setTextOrHide } from "./dom.js";
import { elapsedS, formatClock } from "./format.js";
import { LiveView, fetchStreamUrl } from "./live-view.js";
import { loadNoVnc } from "./novnc-loader.js";
import { describeStatus } from "./status-text.js";
import { TaskStatePoller } from "./task-state-poller.js";
import {
  HAVE_CONTROL, JPEG_QUALITY, leaveWithDoubleEscape, markState, showControl, showNotice, showStatusText,
  toggleControl,
} from "./view-panel.js";

/** @typedef {import("./live-view.js").Status} Status */

const AFTER_CHANGE_POLL_MS = 250;
const ELAPSED_TICK_MS = 500;

const root = document.documentElement;

/** @type {LiveView|null} */
let view = null;
/**
 * The last answer of debug/state; `answers` tells whether the latest request was answered.
 *
 * @type {import("./task-state-poller.js").TaskState|null}
 */
let task = null;
let answers = true;
/**
 * The task of the last stream URL.
 *
 * @type {string|null}
 */
let watchedTaskId = null;
let wasConnected = false;
/** @type {number|null} */
let endedAt = null;

const poller = new TaskStatePoller({ isOver: () => endedAt !== null, onAnswer: onTaskState });
const clipboard = new ClipboardPanel((text) => {
  view?.paste(text);
  view?.focus();
});

async function start() {
  addListeners();
  const RFB = await loadNoVnc();
  if (!RFB) {
    render({ state: "error", outcome: null, code: null, role: null, takingControl: false,
      reason: "noVNC could not be loaded: apt-get install novnc" });
    return;
  }
  view = new LiveView(byId("stage"), { RFB, getUrl, qualityLevel: JPEG_QUALITY });
  view.addEventListener("status", (event) => onStatus(/** @type {CustomEvent} */ (event).detail));
  view.addEventListener("clipboard", (event) => {
    clipboard.showCopied(/** @type {CustomEvent} */ (event).detail.text);
  });
  view.addEventListener("controlrefused", onControlRefused);
  view.start();
  poller.poll();
}

/** @type {import("./live-view.js").Options["getUrl"]} */
async function getUrl(role, signal) {
  const url = await fetchStreamUrl(`debug/stream-url?role=${role}`, { signal });
  watchedTaskId = /\/tasks\/([^/]+)\//.exec(new URL(url).pathname)?.[1] ?? null;
  return url;
}

// Events of the view

/** @param {Status} status */
function onStatus(status) {
  const before = { state: root.dataset.state, role: root.dataset.role };
  if (status.state === "loading") wasConnected = false;
  if (status.state === "connected") wasConnected = true;
  const over = status.state === "ended" || status.state === "error";
  endedAt = over ? (endedAt ?? Date.now()) : null;
  render(status);
  if (root.dataset.role !== before.role) onRoleChanged(before.role);
  if (root.dataset.state === before.state) return;
  if (before.state === "connected") showNotice("");
  poller.pollIn(AFTER_CHANGE_POLL_MS);
}

/** @param {string|undefined} before */
function onRoleChanged(before) {
  if (root.dataset.role === "control") {
    view?.focus();
    showNotice(HAVE_CONTROL);
  } else if (before === "control") {
    if (task) task.controller = false;
    clipboard.reset();
    const control = byId("control", HTMLButtonElement);
    if (!control.disabled) control.focus();
  }
}

async function onControlRefused() {
  await poller.poll();
  showNotice(task?.controller
    ? "Another viewer has control. You can continue to watch."
    : "Control was refused. You can continue to watch.");
}

// The task's state

/** @param {import("./task-state-poller.js").TaskState|null} answer */
function onTaskState(answer) {
  answers = answer !== null;
  const over = endedAt !== null;
  const endedTaskId = watchedTaskId ?? task?.task_id ?? answer?.task_id;
  const isNext = answer !== null && answer.task_id !== endedTaskId && answer.state !== "ending";
  // The header describes the task whose end is shown until the next one can be watched.
  if (answer && (!over || isNext || answer.task_id === endedTaskId)) task = answer;
  if (over && isNext) {
    showNotice(`A new task is ${answer.state} on this address.`);
    view?.start();
  } else if (view) {
    render(view.status);
  }
}

// Drawing

/** @param {Status} status */
function render(status) {
  const text = describeStatus(status, {
    wasConnected,
    answers,
    whyWaiting: whyWaiting(),
    next: "The next task on this address is shown automatically.",
  });
  markState(root, status);
  setText("state", text.state);
  showStatusText(text);
  renderTask(status);
  showControl(status, task?.controller);
  clipboard.setAvailable(status.role === "control");
  document.title = [text.state, task?.target?.split("/").at(-1), "worker"].filter(Boolean).join(" · ");
}

function whyWaiting() {
  if (!answers) return "The worker does not answer.";
  if (task?.state === "ending") return "The previous task is ending.";
  return "The task is starting. The picture appears automatically.";
}

/** @param {Status} status */
function renderTask(status) {
  setText("target", task?.target);
  byId("target").title = task?.target ?? "";
  setTextOrHide("task-id", task?.task_id);
  byId("task-id").dataset.taskId = task?.task_id ?? "";
  byId("viewers").hidden = status.state !== "connected" || !Number.isInteger(task?.viewers);
  setText("viewer-count", String(task?.viewers ?? ""));
  byId("viewers").title = task?.viewers === 1 ? "1 viewer" : `${task?.viewers} viewers`;
  renderElapsed();
}

function renderElapsed() {
  const finishedAt = endedAt === null ? null : new Date(endedAt).toISOString();
  const seconds = elapsedS({ started_at: task?.started_at, finished_at: finishedAt });
  setText("elapsed", seconds === null ? "" : formatClock(seconds));
}

// Input

function addListeners() {
  byId("retry").addEventListener("click", retry);
  byId("control").addEventListener("click", () => view && toggleControl(view));
  byId("task-id").addEventListener("click", () => copyText(task?.task_id ?? "", "Task id"));
  byId("fullscreen").hidden = !document.fullscreenEnabled;
  byId("fullscreen").addEventListener("click", () => byId("viewer").requestFullscreen());
  leaveWithDoubleEscape(() => view);

  setInterval(renderElapsed, ELAPSED_TICK_MS);
  window.addEventListener("online", () => view?.retryNow());
  document.addEventListener("visibilitychange", () => {
    if (!view || document.visibilityState === "hidden") return;
    view.retryNow();
    poller.poll();
  });
  window.addEventListener("pagehide", () => view?.stop());
  window.addEventListener("pageshow", ({ persisted }) => persisted && view?.start());
}

function retry() {
  if (!view) window.location.reload();
  else if (view.status.state === "reconnecting") view.retryNow();
  else view.start();
}

await start();
