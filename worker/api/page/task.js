/** A task's page: watch it, cancel it, see its result and its artifacts. */

import { $, clock, notify, setText, setTextOrHide } from "../live/view-panel.js";
import { isOver, Poller } from "./api.js";
import { duration, elapsedS, make, moment, size, write } from "./dom.js";
import { STATUS_WORDS } from "./tasks.js";
import { Watch } from "./watch.js";

const POLL_MS = 1000;
const TICK_MS = 500;
const TOO_LARGE = "Left out: the output is larger than what could be kept of it";

export class TaskPage {
  #session;
  #changed;
  #poller;
  #watch;
  #ticks = null;
  #id = null;
  #task = null;
  #cancelling = false;

  /**
   * @param {object} session
   * @param {{changed: () => void}} calls  `changed`: the task's status is another than before
   */
  constructor(session, { changed }) {
    this.#session = session;
    this.#changed = changed;
    this.#poller = new Poller((signal) => this.#load(signal), (error) => this.#failed(error));
    this.#watch = new Watch(session, { ended: () => this.#poller.now() });
    $("cancel").addEventListener("click", () => this.#cancel());
    $("task-id").addEventListener("click", () => copy(this.#id));
  }

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
    this.#watch.stop();
    this.#id = this.#task = null;
    this.#cancelling = false;
    for (const id of ["task", "missing", "facts", "failure"]) $(id).hidden = true;
    for (const id of ["artifacts", "times", "output", "inputs", "artifacts-empty"]) $(id).replaceChildren();
  }

  async #load(signal) {
    const task = await this.#session.api.task(this.#id, signal);
    if (signal.aborted) return null;
    const before = this.#task;
    this.#task = task;
    this.#draw();
    if (!before) $("task-title").focus({ preventScroll: true });
    this.#watch.follow(task);
    if (before && before.status !== task.status) this.#changed();
    if (!isOver(task)) return POLL_MS;
    if (!before || !isOver(before)) await this.#loadArtifacts(signal);
    return null;
  }

  #failed(error) {
    if (error?.status !== 404) return this.#session.failed(error);
    // A worker's artifacts can be gone while its task is known.
    if (this.#task) return true;
    setText("missing-text", error.message);
    $("missing").hidden = false;
    document.title = "No such task · worker";
    return true;
  }

  async #cancel() {
    this.#cancelling = true;
    this.#draw();
    try {
      await this.#session.api.cancel(this.#id);
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#cancelling = false;
      if (!this.#session.failed(error)) notify(`Not cancelled: ${error.message}`);
    }
    if (this.#id) this.#poller.now();
  }

  #draw() {
    const task = this.#task;
    const word = STATUS_WORDS[task.status] ?? task.status;
    const over = isOver(task);
    $("task").hidden = false;
    $("task").dataset.status = task.status;
    $("task-id").dataset.taskId = task.task_id;
    setText("task-title", task.endpoint_name);
    setText("task-id", task.task_id);
    setText("task-status", word);
    $("cancel").hidden = over;
    $("cancel").disabled = this.#cancelling;
    setText("cancel", this.#cancelling ? "Cancelling…" : "Cancel task");
    document.title = `${word} · ${task.endpoint_name} · worker`;
    this.#drawElapsed();
    $("facts").hidden = !over;
    if (over) drawResult(task);
  }

  #drawElapsed() {
    const took = this.#task && elapsedS(this.#task);
    setText("elapsed", Number.isFinite(took) ? clock(took) : "");
  }

  async #loadArtifacts(signal) {
    const found = await this.#session.api.artifacts(this.#id, signal);
    if (signal.aborted) return;
    setText("artifacts-empty", found.length === 0 ? "None" : "");
    $("artifacts").replaceChildren(...found.map((artifact) => this.#artifact(artifact)));
  }

  #artifact({ name, size_bytes: bytes }) {
    const button = make("button", { type: "button", class: "file", title: `Download ${name}` },
      make("span", { class: "name" }, name), make("span", { class: "size" }, size(bytes)));
    button.addEventListener("click", () => this.#download(name, button));
    return make("li", {}, button);
  }

  /** The key goes in a header, which a plain link cannot send. */
  async #download(name, button) {
    button.disabled = true;
    try {
      const blob = await this.#session.api.artifact(this.#id, name);
      const link = make("a", { href: URL.createObjectURL(blob), download: name.split("/").at(-1) });
      link.click();
      // Not at once: the browser has yet to open it.
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      if (error.status === undefined) throw error;
      if (!this.#session.failed(error)) setText("artifacts-empty", `${name}: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }
}

function drawResult(task) {
  const { error, output, output_omitted: omitted } = task;
  setTextOrHide("failure", error ? [error.type, error.message].filter(Boolean).join(": ") : "");
  const hasOutput = output !== null && output !== undefined;
  setText("output", hasOutput ? JSON.stringify(output, null, 2) : omitted ? TOO_LARGE : "No output");
  $("output").classList.toggle("hint", !hasOutput);
  $("traceback").hidden = !error?.traceback;
  write($("traceback").querySelector("pre"), error?.traceback ?? "");
  setText("inputs", JSON.stringify(task.input_parameters ?? {}, null, 2));
  const facts = {
    Created: moment(task.created_at),
    Started: moment(task.started_at),
    Finished: moment(task.finished_at),
    Took: duration(task),
    "Exit code": String(task.exit_code ?? "–"),
  };
  $("times").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

async function copy(text) {
  const button = $("task-id");
  try {
    await navigator.clipboard.writeText(text);
    button.dataset.copied = "Copied";
  } catch {
    // Only HTTPS and localhost may copy; a selection can still be copied by hand.
    window.getSelection().selectAllChildren(button);
    button.dataset.copied = "Selected";
  }
  setTimeout(() => delete button.dataset.copied, 1500);
}
