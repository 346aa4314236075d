/** The live picture on a task's page: one LiveView, from queued to the end of the stream. */

import { LiveView, StreamUnavailable } from "../live/live-view.js";
import {
  $, describe, leaveWithDoubleEscape, loadNoVnc, markState, notify, showControl, showWords,
  toggleControl,
} from "../live/view-panel.js";
import { isOver } from "./api.js";

const JPEG_QUALITY = 8;
const NOVNC_MISSING = "noVNC is missing where the API runs: install it (apt-get install novnc) "
  + "or set WORKER_NOVNC_DIR";
/** States that do not end by themselves once the task is over. */
const STUCK = new Set(["loading", "waiting", "reconnecting"]);

export class Watch {
  #session;
  #ended;
  #view = null;
  #task = null;
  #opening = false;
  #wasConnected = false;
  #refusal = "";

  /**
   * @param {object} session
   * @param {{ended: () => void}} calls  `ended`: the stream says that the task ended
   */
  constructor(session, { ended }) {
    this.#session = session;
    this.#ended = ended;
    $("retry").addEventListener("click", () => this.#retry());
    $("control").addEventListener("click", () => this.#view && toggleControl(this.#view));
    $("fullscreen").addEventListener("click", () => $("watch").requestFullscreen());
    leaveWithDoubleEscape(() => this.#view);
    window.addEventListener("online", () => this.#view?.retryNow());
    window.addEventListener("pagehide", () => this.#view?.stop());
    window.addEventListener("pageshow", ({ persisted }) => persisted && window.location.reload());
  }

  /** What is known of the task now. A picture is asked for once it runs, as before it there is none. */
  follow(task) {
    const isNew = this.#task === null;
    this.#task = task;
    if (isNew && isOver(task)) return;
    if (isNew) {
      $("watch").hidden = false;
      this.#draw({ state: task.status === "queued" ? "waiting" : "loading" });
    }
    if (task.status === "running" && !this.#view && !this.#opening) this.#open();
    if (isOver(task)) this.#onOver();
  }

  /** Let go of the task. */
  stop() {
    const view = this.#view;
    this.#view = this.#task = null;
    this.#opening = this.#wasConnected = false;
    view?.stop();
    $("watch").hidden = true;
    $("stage").replaceChildren();
    notify("");
    this.#draw({ state: "loading" });
  }

  async #open() {
    const { task_id: id } = this.#task;
    this.#opening = true;
    const RFB = await loadNoVnc();
    if (!RFB) {
      if (this.#task?.task_id === id) this.#draw({ state: "error", reason: NOVNC_MISSING });
      return;
    }
    if (this.#task?.task_id !== id || this.#view) return;
    this.#opening = false;
    const getUrl = (role, signal) => this.#streamUrl(id, role, signal);
    const view = new LiveView($("stage"), { RFB, getUrl, qualityLevel: JPEG_QUALITY });
    this.#view = view;
    view.addEventListener("status", ({ detail }) => view === this.#view && this.#onStatus(detail));
    view.addEventListener("controlrefused", () => {
      notify(`No control: ${this.#refusal || "someone else may have it"}. You can watch meanwhile.`);
    });
    view.start();
    if (isOver(this.#task)) this.#onOver();
  }

  async #streamUrl(id, role, signal) {
    this.#refusal = "";
    const { api } = this.#session;
    if (!api) throw new StreamUnavailable("refused", "signed out");
    try {
      return await api.streamUrl(id, role, signal);
    } catch (error) {
      if (role === "control") this.#refusal = error.message;
      throw error;
    }
  }

  #onStatus(status) {
    const before = $("watch").dataset.state;
    const { role } = $("watch").dataset;
    this.#wasConnected ||= status.state === "connected";
    this.#draw(status);
    if (status.state !== "connected" && before === "connected") notify("");
    if (status.role === "control" && role !== "control") {
      this.#view.focus();
      notify("You have control. Press Esc twice to leave the picture with the keyboard.");
    }
    if (status.state !== before && isOver(this.#task)) this.#onOver();
    else if (status.state !== before && status.state === "ended") this.#ended();
  }

  /** The stream's own words are better, so this is only for when none can come any more. */
  #onOver() {
    const { status } = this.#task;
    if (this.#view && STUCK.has(this.#view.status.state)) this.#view.end(status);
    else if (!this.#view) this.#draw({ state: "ended", outcome: status });
  }

  #draw(status) {
    const full = { outcome: null, code: null, reason: "", role: null, ...status };
    markState($("watch"), full);
    // The API does not tell whether somebody else has control.
    showControl(full, null);
    showWords(describe(full, {
      wasConnected: this.#wasConnected,
      answers: true,
      whyWaiting: this.#task?.status === "queued"
        ? "It is queued. The picture comes by itself." : "The picture comes by itself.",
    }));
    $("fullscreen").disabled = full.state !== "connected";
    $("fullscreen").hidden = !document.fullscreenEnabled;
    // Without noVNC trying again would not help.
    if (!this.#view) $("retry").hidden = true;
  }

  #retry() {
    if (this.#view?.status.state === "reconnecting") this.#view.retryNow();
    else this.#view?.start();
  }
}
