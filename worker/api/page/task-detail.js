/** One task: its live view, cancelling it, its result and its artifacts. */

import { byId, create, query, setText, setTextOrHide } from "../live/dom.js";
import { elapsedS, formatClock, formatDuration, formatSize, formatTime } from "../live/format.js";
import { showNotice } from "../live/view-panel.js";
import { apiOf } from "./account.js";
import { ApiError, isOver } from "./api-client.js";
import { LivePanel } from "./live-panel.js";
import { Poller } from "./poller.js";
import { STATUS_TEXT } from "./task-list.js";

/** @typedef {import("./api-client.js").Task} Task */

const POLL_MS = 1000;
const TICK_MS = 500;
const COPIED_MS = 1500;
/** A browser opens a download some time after the click. */
const DOWNLOAD_START_MAX_MS = 60_000;
const OUTPUT_OMITTED = "Omitted: the output is larger than the size that is kept";
const HIDDEN_AT_FIRST = ["task", "missing", "facts", "failure"];
const EMPTY_AT_FIRST = ["artifacts", "times", "output", "inputs", "artifacts-empty"];

export class TaskDetail {
  #account;
  #onStatusChange;
  #poller;
  #livePanel;
  /** @type {number|undefined} */
  #ticks;
  /** @type {string|null} */
  #id = null;
  /** @type {Task|null} */
  #task = null;
  #cancelling = false;

  /**
   * @param {import("./account.js").Account} account
   * @param {{onStatusChange: () => void}} calls
   */
  constructor(account, { onStatusChange }) {
    this.#account = account;
    this.#onStatusChange = onStatusChange;
    this.#poller = new Poller((signal) => this.#load(signal), (error) => this.#showError(error));
    this.#livePanel = new LivePanel(account, { onEnded: () => this.#poller.now() });
    byId("cancel").addEventListener("click", () => this.#cancel());
    byId("task-id").addEventListener("click", () => this.#id && copyId(this.#id));
  }

  /** @param {string} id */
  show(id) {
    if (id === this.#id) return;
    this.hide();
    this.#id = id;
    document.title = "Task · worker";
    this.#poller.now();
    this.#ticks = setInterval(() => this.#drawElapsed(), TICK_MS);
  }

  hide() {
    this.#poller.stop();
    clearInterval(this.#ticks);
    this.#livePanel.hide();
    this.#id = this.#task = null;
    this.#cancelling = false;
    for (const id of HIDDEN_AT_FIRST) byId(id).hidden = true;
    for (const id of EMPTY_AT_FIRST) byId(id).replaceChildren();
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    const id = this.#id ?? "";
    const task = await apiOf(this.#account).task(id, signal);
    if (signal.aborted) return null;
    const before = this.#task;
    this.#task = task;
    this.#draw(task);
    if (!before) byId("task-title").focus({ preventScroll: true });
    this.#livePanel.update(task);
    if (before && before.status !== task.status) this.#onStatusChange();
    if (!isOver(task)) return POLL_MS;
    if (!before || !isOver(before)) await this.#loadArtifacts(id, signal);
    return null;
  }

  /** @param {ApiError|null} error */
  #showError(error) {
    if (error?.status !== 404) return this.#account.handleError(error);
    // The artifacts may be deleted while the task is still listed.
    if (this.#task) return true;
    setText("missing-text", error.message);
    byId("missing").hidden = false;
    document.title = "No such task · worker";
    return true;
  }

  async #cancel() {
    if (!this.#task) return;
    this.#cancelling = true;
    this.#draw(this.#task);
    try {
      await apiOf(this.#account).cancel(this.#task.task_id);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#cancelling = false;
      if (!this.#account.handleError(error)) showNotice(`Not cancelled: ${error.message}`);
    }
    if (this.#id) this.#poller.now();
  }

  /** @param {Task} task */
  #draw(task) {
    const status = STATUS_TEXT[task.status] ?? task.status;
    const over = isOver(task);
    byId("task").hidden = false;
    byId("task").dataset.status = task.status;
    byId("task-id").dataset.taskId = task.task_id;
    setText("task-title", task.endpoint_name);
    setText("task-id", task.task_id);
    setText("task-status", status);
    byId("cancel").hidden = over;
    byId("cancel", HTMLButtonElement).disabled = this.#cancelling;
    setText("cancel", this.#cancelling ? "Cancelling…" : "Cancel task");
    document.title = `${status} · ${task.endpoint_name} · worker`;
    this.#drawElapsed();
    byId("facts").hidden = !over;
    if (over) drawResult(task);
  }

  #drawElapsed() {
    const seconds = this.#task && elapsedS(this.#task);
    setText("elapsed", seconds === null ? "" : formatClock(seconds));
  }

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   */
  async #loadArtifacts(id, signal) {
    const artifacts = await apiOf(this.#account).artifacts(id, signal);
    if (signal.aborted) return;
    setText("artifacts-empty", artifacts.length === 0 ? "None" : "");
    byId("artifacts").replaceChildren(...artifacts.map((artifact) => this.#createArtifact(id, artifact)));
  }

  /**
   * @param {string} id
   * @param {{name: string, size_bytes: number}} artifact
   */
  #createArtifact(id, { name, size_bytes: bytes }) {
    const button = create("button", { type: "button", class: "file", title: `Download ${name}` },
      create("span", { class: "name" }, name), create("span", { class: "size" }, formatSize(bytes)));
    button.addEventListener("click", () => this.#download(id, name, button));
    return create("li", {}, button);
  }

  /**
   * Fetches the file by script, since a link cannot send the key in a header.
   *
   * @param {string} id
   * @param {string} name
   * @param {HTMLButtonElement} button
   */
  async #download(id, name, button) {
    button.disabled = true;
    try {
      const blob = await apiOf(this.#account).artifact(id, name);
      const link = create("a", { href: URL.createObjectURL(blob), download: name.split("/").at(-1) ?? "" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_START_MAX_MS);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (!this.#account.handleError(error)) setText("artifacts-empty", `${name}: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }
}

/** @param {Task} task */
function drawResult(task) {
  const { error, output, output_omitted: omitted } = task;
  setTextOrHide("failure", error ? [error.type, error.message].filter(Boolean).join(": ") : "");
  const hasOutput = output !== null && output !== undefined;
  setText("output", hasOutput ? JSON.stringify(output, null, 2) : omitted ? OUTPUT_OMITTED : "No output");
  byId("output").classList.toggle("hint", !hasOutput);
  byId("traceback").hidden = !error?.traceback;
  setText(query(byId("traceback"), "pre"), error?.traceback);
  setText("inputs", JSON.stringify(task.input_parameters ?? {}, null, 2));
  const times = {
    Created: formatTime(task.created_at),
    Started: formatTime(task.started_at),
    Finished: formatTime(task.finished_at),
    Duration: formatDuration(task),
    "Exit code": String(task.exit_code ?? "–"),
  };
  byId("times").replaceChildren(...Object.entries(times).map(([name, value]) =>
    create("div", {}, create("dt", {}, name), create("dd", {}, value))));
}

/** @param {string} id */
async function copyId(id) {
  const button = byId("task-id");
  try {
    await navigator.clipboard.writeText(id);
    button.dataset.copied = "Copied";
  } catch {
    // Browsers allow copying on HTTPS and localhost only; the selection can be copied by keyboard.
    window.getSelection()?.selectAllChildren(button);
    button.dataset.copied = "Selected";
  }
  setTimeout(() => delete button.dataset.copied, COPIED_MS);
}
