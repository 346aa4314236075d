/**
 * The page for local debugging: one live view with what is known about its task around it.
 *
 * For tests and user scripts, these stay as they are:
 *
 *   <html data-state>    loading | waiting | connecting | connected | reconnecting | ended | error
 *   <html data-outcome>  success | failed | cancelled; only once the task ended
 *   <html data-role>     view | control | none: what the live connection may do
 *   #state               the state in a word
 *   #status-title, #status-text, #status-raw
 *                        why there is no live picture: "Stream ended", "Task succeeded", and the
 *                        close code with the server's own words ("1000 task success")
 *   #retry               try again now (only where that makes sense)
 *   #target, #task-id, #elapsed, #viewer-count
 *                        what runs (`data-task-id` on #task-id), for how long, how many watch
 *   #control             the switch (aria-checked); #control-holder says who has control
 *   #clipboard-toggle, #clipboard, #paste-text, #paste, #copied-text, #copy
 *                        both ways of the clipboard, while having control
 *   #fullscreen, #notice
 *   #stage [data-layer="live"] canvas    the live picture, 1920×1080 inside
 *   #stage [data-layer="still"] canvas   the last picture of a closed connection
 */

import { LiveView, fetchStreamUrl } from "./live-view.js";
import {
  $, clock, describe, leaveWithDoubleEscape, loadNoVnc, markState, notify, setText, setTextOrHide,
  showControl, showWords, toggleControl,
} from "./view-panel.js";

const STATE_POLL_MS = 2000;
const NEXT_TASK_POLL_MS = 3000;
const AFTER_CHANGE_POLL_MS = 250;
const ELAPSED_TICK_MS = 500;
const JPEG_QUALITY = 8;

const root = document.documentElement;

let view = null;
/** The last answer of debug/state; `answers` says whether the latest question had one. */
let task = null;
let answers = true;
/** The task that the last stream URL was for. */
let watchedTaskId = null;
let wasConnected = false;
let endedAt = null;

async function begin() {
  listen();
  const RFB = await loadNoVnc();
  if (!RFB) {
    render({ state: "error", outcome: null, code: null, role: null,
      reason: "noVNC could not be loaded: apt-get install novnc" });
    return;
  }
  view = new LiveView($("stage"), { RFB, getUrl, qualityLevel: JPEG_QUALITY });
  view.addEventListener("status", ({ detail }) => onStatus(detail));
  view.addEventListener("clipboard", ({ detail }) => showCopied(detail.text));
  view.addEventListener("controlrefused", onControlRefused);
  view.start();
  poll();
}

async function getUrl(role, signal) {
  const url = await fetchStreamUrl(`debug/stream-url?role=${role}`, { signal });
  watchedTaskId = /\/tasks\/([^/]+)\//.exec(new URL(url).pathname)?.[1] ?? null;
  return url;
}

// What the view says

function onStatus(status) {
  const before = { state: root.dataset.state, role: root.dataset.role };
  if (status.state === "loading") wasConnected = false;
  if (status.state === "connected") wasConnected = true;
  const over = status.state === "ended" || status.state === "error";
  endedAt = over ? (endedAt ?? Date.now()) : null;
  render(status);
  if (root.dataset.role !== before.role) onRoleChanged(before.role);
  if (root.dataset.state === before.state) return;
  if (before.state === "connected") notify("");
  pollIn(AFTER_CHANGE_POLL_MS);
}

function onRoleChanged(before) {
  const { role } = root.dataset;
  if (role === "control") {
    view.focus();
    notify("You have control. Press Esc twice to leave the picture with the keyboard.");
  } else if (before === "control") {
    if (task) task.controller = false;
    showClipboard(false);
    $("copied-text").value = "";
    $("copy").disabled = true;
    if (!$("control").disabled) $("control").focus();
  }
}

async function onControlRefused() {
  await poll();
  notify(task?.controller
    ? "Someone else has control. You can watch meanwhile."
    : "Control was refused. You can watch meanwhile.");
}

// What the worker says

let pollTimer = null;
let polling = new AbortController();

function pollIn(delayMs) {
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, delayMs);
}

/** Ask for the task's state, now and then again; an older question that still hangs is dropped. */
async function poll() {
  polling.abort();
  polling = new AbortController();
  const { signal } = polling;
  if (document.visibilityState === "hidden") return;
  const over = endedAt !== null;
  pollIn(over ? NEXT_TASK_POLL_MS : STATE_POLL_MS);
  let answer = null;
  try {
    const response = await fetch("debug/state", { signal, cache: "no-store" });
    if (response.ok) answer = await response.json();
  } catch {
    // Nobody answers: normal between two runs.
  }
  if (!signal.aborted) onAnswer(answer);
}

function onAnswer(answer) {
  answers = answer !== null;
  const over = endedAt !== null;
  const left = watchedTaskId ?? task?.task_id ?? answer?.task_id;
  const isNext = answers && answer.task_id !== left && answer.state !== "ending";
  // The header goes on telling about the task whose end is shown, until there is another to watch.
  if (answers && (!over || isNext || answer.task_id === left)) task = answer;
  if (over && isNext) {
    notify(`A new task is ${answer.state} here.`);
    view.start();
  } else {
    render(view.status);
  }
}

// Drawing

function render(status) {
  const words = describe(status, {
    wasConnected,
    answers,
    whyWaiting: whyWaiting(),
    next: "The next task on this address shows up here by itself.",
  });
  markState(root, status);
  setText("state", words.state);
  showWords(words);
  renderTask(status);
  showControl(status, task?.controller);
  $("clipboard-toggle").hidden = status.role !== "control";
  document.title = [words.state, task?.target?.split("/").at(-1), "worker"].filter(Boolean).join(" · ");
}

function whyWaiting() {
  if (!answers) return "The worker does not answer.";
  if (task?.state === "ending") return "The one before is ending.";
  return "It is starting. The picture comes by itself.";
}

function renderTask(status) {
  setText("target", task?.target ?? "");
  $("target").title = task?.target ?? "";
  setTextOrHide("task-id", task?.task_id);
  $("task-id").dataset.taskId = task?.task_id ?? "";
  $("viewers").hidden = status.state !== "connected" || !Number.isInteger(task?.viewers);
  setText("viewer-count", String(task?.viewers ?? ""));
  $("viewers").title = task?.viewers === 1 ? "1 viewer" : `${task?.viewers} viewers`;
  renderElapsed();
}

function renderElapsed() {
  const startedAt = Date.parse(task?.started_at ?? "");
  const elapsedS = Math.max(0, Math.floor(((endedAt ?? Date.now()) - startedAt) / 1000));
  setText("elapsed", Number.isNaN(startedAt) ? "" : clock(elapsedS));
}

// The clipboard

function showClipboard(open) {
  $("clipboard").hidden = !open;
  $("clipboard-toggle").setAttribute("aria-expanded", String(open));
}

function showCopied(text) {
  $("copied-text").value = text;
  $("copy").disabled = text === "";
  if ($("clipboard").hidden) notify("The task's browser copied some text: see Clipboard.");
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notify(`${what} copied.`);
  } catch {
    notify("The browser did not allow copying.");
  }
}

// What the user does

function listen() {
  $("retry").addEventListener("click", retry);
  $("control").addEventListener("click", () => toggleControl(view));
  $("task-id").addEventListener("click", () => copy($("task-id").dataset.taskId, "Task id"));

  $("clipboard-toggle").addEventListener("click", () => {
    showClipboard($("clipboard").hidden);
    if (!$("clipboard").hidden) $("paste-text").focus();
  });
  $("clipboard").addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      showClipboard(false);
      $("clipboard-toggle").focus();
    } else if (event.key === "Enter" && event.ctrlKey && event.target === $("paste-text")) {
      $("paste-form").requestSubmit();
    }
  });
  $("paste-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if ($("paste-text").value === "") return;
    view.paste($("paste-text").value);
    view.focus();
  });
  $("copy").addEventListener("click", () => copy($("copied-text").value, "Text"));

  $("fullscreen").hidden = !document.fullscreenEnabled;
  $("fullscreen").addEventListener("click", () => $("viewer").requestFullscreen());

  leaveWithDoubleEscape(() => view);

  setInterval(renderElapsed, ELAPSED_TICK_MS);
  window.addEventListener("online", () => view?.retryNow());
  document.addEventListener("visibilitychange", () => {
    if (!view || document.visibilityState === "hidden") return;
    view.retryNow();
    poll();
  });
  window.addEventListener("pagehide", () => view?.stop());
  window.addEventListener("pageshow", ({ persisted }) => persisted && view?.start());
}

function retry() {
  if (!view) window.location.reload();
  else if (view.status.state === "reconnecting") view.retryNow();
  else view.start();
}

await begin();
