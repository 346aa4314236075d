/** The list of tasks, newest first, a page at a time, with their states live. */

import { $, clock, setText } from "../live/view-panel.js";
import { isOver, Poller } from "./api.js";
import { ago, duration, elapsedS, make, sync, write } from "./dom.js";

const PAGE_TASKS = 25;
const BUSY_POLL_MS = 2000;
const QUIET_POLL_MS = 5000;
const TICK_MS = 1000;

export const STATUS_WORDS = {
  queued: "Queued", running: "Running", success: "Success", failed: "Failed", cancelled: "Cancelled",
};

export class TaskList {
  #session;
  #poller;
  #ticks = null;
  #tasks = [];
  #chosen = null;
  /** The cursors of the pages up to the one that is shown; the first page has none. */
  #cursors = [null];
  #nextCursor = null;

  constructor(session) {
    this.#session = session;
    this.#poller = new Poller((signal) => this.#load(signal), (error) => this.#failed(error));
    $("filter").addEventListener("change", () => this.#turn([null]));
    $("newer").addEventListener("click", () => this.#turn(this.#cursors.slice(0, -1)));
    $("older").addEventListener("click", () => this.#turn([...this.#cursors, this.#nextCursor]));
  }

  show() {
    this.#clear();
    this.#poller.now();
    this.#ticks = setInterval(() => this.#draw(), TICK_MS);
  }

  hide() {
    this.#poller.stop();
    clearInterval(this.#ticks);
    this.#cursors = [null];
    $("filter").value = "";
    this.#clear();
  }

  /** Ask at once, e.g. because a task was started. */
  refresh() {
    this.#poller.now();
  }

  /** Mark the task whose page is shown; null for none. */
  choose(taskId) {
    this.#chosen = taskId;
    this.#draw();
  }

  #turn(cursors) {
    this.#cursors = cursors;
    $("rows").setAttribute("aria-busy", "true");
    $("list").scrollTop = 0;
    this.#poller.now();
  }

  #clear() {
    this.#tasks = [];
    $("rows").setAttribute("aria-busy", "true");
    $("rows").replaceChildren();
    $("list-empty").hidden = true;
    $("pages").hidden = true;
  }

  async #load(signal) {
    const status = $("filter").value;
    const cursor = this.#cursors.at(-1);
    const page = await this.#session.api.tasks({ status, cursor, limit: PAGE_TASKS, signal });
    if (signal.aborted) return null;
    this.#tasks = page.tasks;
    this.#nextCursor = page.next_cursor ?? null;
    $("rows").setAttribute("aria-busy", "false");
    this.#draw();
    return page.tasks.every(isOver) ? QUIET_POLL_MS : BUSY_POLL_MS;
  }

  #failed(error) {
    setText("trouble", error && error.status !== 401 ? `${error.message} Trying again.` : "");
    return this.#session.failed(error);
  }

  #draw() {
    const loaded = $("rows").getAttribute("aria-busy") === "false";
    sync($("rows"), this.#tasks, (task) => task.task_id, createRow, (row, task) => {
      drawRow(row, task, task.task_id === this.#chosen);
    });
    const page = this.#cursors.length;
    $("list-empty").hidden = !loaded || this.#tasks.length > 0;
    if ($("filter").value) setText("list-empty", "No task with this status.");
    else setText("list-empty", page > 1 ? "No older task." : "No task yet. Start one to watch it here.");
    $("pages").hidden = !loaded || (page === 1 && !this.#nextCursor);
    $("newer").disabled = page === 1;
    $("older").disabled = !this.#nextCursor;
    setText("page-number", `Page ${page}`);
  }
}

function createRow({ task_id: id }) {
  return make("li", {},
    make("a", { href: `#/tasks/${encodeURIComponent(id)}` },
      make("span", { class: "name" }),
      make("span", { class: "pill" }),
      make("span", { class: "id", title: id }, id.slice(0, 8)),
      make("span", { class: "when" })));
}

function drawRow(row, task, isChosen) {
  row.dataset.status = task.status;
  const [name, status, , when] = row.firstElementChild.children;
  write(name, task.endpoint_name);
  write(status, STATUS_WORDS[task.status] ?? task.status);
  const took = elapsedS(task);
  const length = isOver(task) ? duration(task) : took !== null && clock(took);
  write(when, [ago(task.created_at), took !== null && length].filter(Boolean).join(" · "));
  if (isChosen) row.firstElementChild.setAttribute("aria-current", "page");
  else row.firstElementChild.removeAttribute("aria-current");
}
