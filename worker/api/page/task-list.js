/** The list of tasks, newest first, one page at a time, with their current states. */

import { byId, childElements, create, setText, syncChildren } from "../live/dom.js";
import { elapsedS, formatAge, formatClock, formatDuration } from "../live/format.js";
import { apiOf } from "./account.js";
import { isOver } from "./api-client.js";
import { Poller } from "./poller.js";

/** @typedef {import("./api-client.js").Task} Task */

const PAGE_TASKS = 25;
const RUNNING_POLL_MS = 2000;
const ALL_OVER_POLL_MS = 5000;
const TICK_MS = 1000;

export const STATUS_TEXT = {
  queued: "Queued", running: "Running", success: "Success", failed: "Failed", cancelled: "Cancelled",
};

export class TaskList {
  #account;
  #poller;
  /** @type {number|undefined} */
  #ticks;
  /** @type {Task[]} */
  #tasks = [];
  /** @type {string|null} */
  #selected = null;
  /**
   * The cursors of the pages up to the one that is shown; the first page has none.
   *
   * @type {Array<string|null>}
   */
  #cursors = [null];
  /** @type {string|null} */
  #nextCursor = null;
  #filter = byId("filter", HTMLSelectElement);

  /** @param {import("./account.js").Account} account */
  constructor(account) {
    this.#account = account;
    this.#poller = new Poller((signal) => this.#load(signal), (error) => this.#showError(error));
    this.#filter.addEventListener("change", () => this.#showPage([null]));
    byId("newer").addEventListener("click", () => this.#showPage(this.#cursors.slice(0, -1)));
    byId("older").addEventListener("click", () => this.#showPage([...this.#cursors, this.#nextCursor]));
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
    this.#filter.value = "";
    this.#clear();
  }

  /** Load the page now, e.g. because a task was started. */
  refresh() {
    this.#poller.now();
  }

  /**
   * Mark the task whose detail is shown.
   *
   * @param {string|null} taskId
   */
  select(taskId) {
    this.#selected = taskId;
    this.#draw();
  }

  /** @param {Array<string|null>} cursors */
  #showPage(cursors) {
    this.#cursors = cursors;
    byId("rows").setAttribute("aria-busy", "true");
    byId("list").scrollTop = 0;
    this.#poller.now();
  }

  #clear() {
    this.#tasks = [];
    byId("rows").setAttribute("aria-busy", "true");
    byId("rows").replaceChildren();
    byId("list-empty").hidden = true;
    byId("pages").hidden = true;
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    const status = this.#filter.value;
    const cursor = this.#cursors.at(-1);
    const page = await apiOf(this.#account).tasks({ status, cursor, limit: PAGE_TASKS, signal });
    if (signal.aborted) return null;
    this.#tasks = page.tasks;
    this.#nextCursor = page.next_cursor ?? null;
    byId("rows").setAttribute("aria-busy", "false");
    this.#draw();
    return page.tasks.every(isOver) ? ALL_OVER_POLL_MS : RUNNING_POLL_MS;
  }

  /** @param {import("./api-client.js").ApiError|null} error */
  #showError(error) {
    setText("trouble", error && error.status !== 401 ? `${error.message} Retrying.` : "");
    return this.#account.handleError(error);
  }

  #draw() {
    const loaded = byId("rows").getAttribute("aria-busy") === "false";
    syncChildren(byId("rows"), this.#tasks, (task) => task.task_id, createRow, (row, task) => {
      updateRow(row, task, task.task_id === this.#selected);
    });
    const page = this.#cursors.length;
    byId("list-empty").hidden = !loaded || this.#tasks.length > 0;
    if (this.#filter.value) setText("list-empty", "No task with this status.");
    else setText("list-empty", page > 1 ? "No older task." : "No task yet. Start one to watch it here.");
    byId("pages").hidden = !loaded || (page === 1 && !this.#nextCursor);
    byId("newer", HTMLButtonElement).disabled = page === 1;
    byId("older", HTMLButtonElement).disabled = !this.#nextCursor;
    setText("page-number", `Page ${page}`);
  }
}

/** @param {Task} task */
function createRow({ task_id: id }) {
  return create("li", {},
    create("a", { href: `#/tasks/${encodeURIComponent(id)}` },
      create("span", { class: "name" }),
      create("span", { class: "pill" }),
      create("span", { class: "id", title: id }, id.slice(0, 8)),
      create("span", { class: "when" })));
}

/**
 * @param {HTMLElement} row
 * @param {Task} task
 * @param {boolean} isSelected
 */
function updateRow(row, task, isSelected) {
  row.dataset.status = task.status;
  const [link] = childElements(row);
  const [name, status, , when] = childElements(link);
  setText(name, task.endpoint_name);
  setText(status, STATUS_TEXT[task.status] ?? task.status);
  const seconds = elapsedS(task);
  const duration = isOver(task) ? formatDuration(task) : formatClock(seconds ?? 0);
  setText(when, [formatAge(task.created_at), seconds !== null && duration].filter(Boolean).join(" · "));
  if (isSelected) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}
