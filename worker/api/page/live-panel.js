/** The live picture in a task's detail: one LiveView, from queued to the end of the stream. */

import { byId } from "../live/dom.js";
import { LiveView, StreamUnavailable } from "../live/live-view.js";
import { loadNoVnc } from "../live/novnc-loader.js";
import { describeStatus } from "../live/status-text.js";
import {
  HAVE_CONTROL, JPEG_QUALITY, leaveWithDoubleEscape, markState, showControl, showNotice, showStatusText,
  toggleControl,
} from "../live/view-panel.js";
import { isOver } from "./api-client.js";

/**
 * @typedef {import("../live/live-view.js").Status} Status
 * @typedef {import("./api-client.js").Task} Task
 */

const NOVNC_MISSING = "noVNC is not installed on the API's machine: install it (apt-get install novnc) "
  + "or set WORKER_NOVNC_DIR";
/** States that a view does not leave once the task is over. */
const WAITING_STATES = new Set(["loading", "waiting", "reconnecting"]);

export class LivePanel {
  #account;
  #onEnded;
  /** @type {LiveView|null} */
  #view = null;
  /** @type {Task|null} */
  #task = null;
  #opening = false;
  #wasConnected = false;
  #controlRefusal = "";

  /**
   * @param {import("./account.js").Account} account
   * @param {{onEnded: () => void}} calls  `onEnded`: the stream reported the end of the task
   */
  constructor(account, { onEnded }) {
    this.#account = account;
    this.#onEnded = onEnded;
    byId("retry").addEventListener("click", () => this.#retry());
    byId("control").addEventListener("click", () => this.#view && toggleControl(this.#view));
    byId("fullscreen").addEventListener("click", () => byId("watch").requestFullscreen());
    leaveWithDoubleEscape(() => this.#view);
    window.addEventListener("online", () => this.#view?.retryNow());
    window.addEventListener("pagehide", () => this.#view?.stop());
    window.addEventListener("pageshow", ({ persisted }) => persisted && window.location.reload());
  }

  /**
   * Show the task's current state. The view is opened when the task runs; there is no stream earlier.
   *
   * @param {Task} task
   */
  update(task) {
    const isNew = this.#task === null;
    this.#task = task;
    if (isNew && isOver(task)) return;
    if (isNew) {
      byId("watch").hidden = false;
      this.#draw({ state: task.status === "queued" ? "waiting" : "loading" });
    }
    if (task.status === "running" && !this.#view && !this.#opening) this.#open(task.task_id);
    if (isOver(task)) this.#endView(task);
  }

  /** Disconnect and hide the panel. */
  hide() {
    const view = this.#view;
    this.#view = this.#task = null;
    this.#opening = this.#wasConnected = false;
    view?.stop();
    byId("watch").hidden = true;
    byId("stage").replaceChildren();
    showNotice("");
    this.#draw({ state: "loading" });
  }

  /** @param {string} id */
  async #open(id) {
    this.#opening = true;
    const RFB = await loadNoVnc();
    if (!RFB) {
      if (this.#task?.task_id === id) this.#draw({ state: "error", reason: NOVNC_MISSING });
      return;
    }
    if (this.#task?.task_id !== id || this.#view) return;
    this.#opening = false;
    const view = new LiveView(byId("stage"), {
      RFB,
      getUrl: (role, signal) => this.#streamUrl(id, role, signal),
      qualityLevel: JPEG_QUALITY,
    });
    this.#view = view;
    view.addEventListener("status", (event) => {
      if (view === this.#view) this.#onStatus(view, /** @type {CustomEvent} */ (event).detail);
    });
    view.addEventListener("controlrefused", () => {
      const reason = this.#controlRefusal || "another viewer may have it";
      showNotice(`No control: ${reason}. You can continue to watch.`);
    });
    view.start();
    if (isOver(this.#task)) this.#endView(this.#task);
  }

  /**
   * @param {string} id
   * @param {import("../live/live-view.js").Role} role
   * @param {AbortSignal} signal
   */
  async #streamUrl(id, role, signal) {
    this.#controlRefusal = "";
    const { api } = this.#account;
    if (!api) throw new StreamUnavailable("refused", "signed out");
    try {
      return await api.streamUrl(id, role, signal);
    } catch (error) {
      if (role === "control") this.#controlRefusal = /** @type {Error} */ (error).message;
      throw error;
    }
  }

  /**
   * @param {LiveView} view
   * @param {Status} status
   */
  #onStatus(view, status) {
    const { state: before, role } = byId("watch").dataset;
    this.#wasConnected ||= status.state === "connected";
    this.#draw(status);
    if (status.state !== "connected" && before === "connected") showNotice("");
    if (status.role === "control" && role !== "control") {
      view.focus();
      showNotice(HAVE_CONTROL);
    }
    if (status.state === before) return;
    if (this.#task && isOver(this.#task)) this.#endView(this.#task);
    else if (status.state === "ended") this.#onEnded();
  }

  /**
   * Ends a view that can no longer receive the outcome from the stream.
   *
   * @param {Task} task  one that is over
   */
  #endView(task) {
    const outcome = /** @type {import("../live/live-view.js").Outcome} */ (task.status);
    if (this.#view && WAITING_STATES.has(this.#view.status.state)) this.#view.end(outcome);
    else if (!this.#view) this.#draw({ state: "ended", outcome });
  }

  /** @param {Partial<Status> & Pick<Status, "state">} status */
  #draw(status) {
    const full = { outcome: null, code: null, reason: "", role: null, takingControl: false, ...status };
    markState(byId("watch"), full);
    // The API does not report whether another viewer has control.
    showControl(full, null);
    showStatusText(describeStatus(full, {
      wasConnected: this.#wasConnected,
      answers: true,
      whyWaiting: this.#task?.status === "queued"
        ? "The task is queued. The picture appears automatically." : "The picture appears automatically.",
    }));
    byId("fullscreen", HTMLButtonElement).disabled = full.state !== "connected";
    byId("fullscreen").hidden = !document.fullscreenEnabled;
    // Without noVNC a retry cannot help.
    if (!this.#view) byId("retry").hidden = true;
  }

  #retry() {
    if (this.#view?.status.state === "reconnecting") this.#view.retryNow();
    else this.#view?.start();
  }
}
