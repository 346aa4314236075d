/**
 * The dashboard: signing in, and which view is shown. Addresses are `#/`, `#/start`, `#/tasks/<id>`.
 *
 * Stable for tests and user scripts:
 *
 *   <html data-page>   none | sign-in | list | start | task
 *   #key, #sign-in-error, #sign-out
 *   #rows [data-key="<task id>"]   a task in the list; `data-status` is its status
 *   #filter, #newer, #older
 *   #endpoint, #parameters, #json, #timeout, #callback, #submit and `#…-error` with each
 *   #task[data-status], #task-id[data-task-id], #cancel, #output, #failure, #artifacts
 *   #watch[data-state][data-outcome][data-role] with what is in it, as on the debug page
 */

import { byId, query, setText } from "../live/dom.js";
import { ApiClient, ApiError } from "./api-client.js";
import { StartForm } from "./start-form.js";
import { TaskDetail } from "./task-detail.js";
import { TaskList } from "./task-list.js";

/** In sessionStorage, which belongs to this tab and is deleted with it. */
const KEY_ITEM = "worker.api-key";
const SIGNED_IN_ELEMENTS = ["desk", "sign-out", "to-start"];

/** @type {import("./account.js").Account} */
const account = {
  api: null,
  handleError(error) {
    if (!(error instanceof ApiError) || error.status !== 401) return false;
    signOut(error.message);
    return true;
  },
};

const list = new TaskList(account);
const startForm = new StartForm(account, { onStarted: openTask });
const detail = new TaskDetail(account, { onStatusChange: () => list.refresh() });

function begin() {
  byId("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn(byId("key", HTMLInputElement).value.trim());
  });
  byId("sign-out").addEventListener("click", () => signOut(""));
  window.addEventListener("hashchange", route);
  const key = sessionStorage.getItem(KEY_ITEM);
  if (key) enter(key);
  else showSignIn("");
}

/** @param {string} key */
async function signIn(key) {
  const button = query(byId("sign-in"), "button", HTMLButtonElement);
  button.disabled = true;
  setText("sign-in-error", "");
  try {
    await new ApiClient(key).tasks({ limit: 1 });
    enter(key);
  } catch (error) {
    setText("sign-in-error", /** @type {Error} */ (error).message);
    byId("key", HTMLInputElement).select();
  } finally {
    button.disabled = false;
  }
}

/** @param {string} key */
function enter(key) {
  sessionStorage.setItem(KEY_ITEM, key);
  account.api = new ApiClient(key);
  byId("key", HTMLInputElement).value = "";
  byId("sign-in").hidden = true;
  for (const id of SIGNED_IN_ELEMENTS) byId(id).hidden = false;
  list.show();
  route();
}

/** @param {string} reason */
function signOut(reason) {
  sessionStorage.removeItem(KEY_ITEM);
  account.api = null;
  list.hide();
  detail.hide();
  startForm.hide();
  showSignIn(reason);
}

/** @param {string} reason */
function showSignIn(reason) {
  for (const id of SIGNED_IN_ELEMENTS) byId(id).hidden = true;
  byId("sign-in").hidden = false;
  document.documentElement.dataset.page = "sign-in";
  document.title = "Sign in · worker";
  setText("sign-in-error", reason);
  byId("key").focus();
}

function route() {
  if (!account.api) return;
  const [, page, id] = /^#\/(start|tasks)?(?:\/([^/]+))?$/.exec(window.location.hash) ?? [];
  const shown = page === "tasks" && id ? "task" : page === "start" ? "start" : "list";
  document.documentElement.dataset.page = shown;
  byId("nothing").hidden = shown !== "list";
  if (shown !== "task") detail.hide();
  if (shown !== "start") startForm.hide();
  const taskId = shown === "task" ? decode(id) : null;
  list.select(taskId);
  if (taskId !== null) detail.show(taskId);
  if (shown === "start") startForm.show();
  if (shown === "list") document.title = "Tasks · worker";
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} id */
function openTask(id) {
  list.refresh();
  window.location.hash = `#/tasks/${encodeURIComponent(id)}`;
}

begin();
