/**
 * The dashboard: signing in, and which page is shown. Addresses are `#/`, `#/start`, `#/tasks/<id>`.
 *
 * For tests and user scripts, these stay as they are:
 *
 *   <html data-page>   none | sign-in | list | start | task
 *   #key, #sign-in-error, #sign-out
 *   #rows [data-key="<task id>"]   a task in the list; `data-status` is its status
 *   #filter, #newer, #older
 *   #endpoint, #parameters, #json, #timeout, #callback, #submit and `#…-error` with each
 *   #task[data-status], #task-id[data-task-id], #cancel, #output, #failure, #artifacts
 *   #watch[data-state][data-outcome][data-role] with what is in it, as on the debug page
 */

import { $, setText } from "../live/view-panel.js";
import { Api } from "./api.js";
import { StartForm } from "./start.js";
import { TaskPage } from "./task.js";
import { TaskList } from "./tasks.js";

/** A tab's own, and gone with it; a URL, a cookie or localStorage would keep it for longer. */
const KEY_PLACE = "worker.api-key";

/** What the parts share: the API in this account's name, and what to do with its errors. */
const session = {
  api: null,

  /** @returns {boolean} whether it is over, so that asking again makes no sense */
  failed(error) {
    if (error?.status === 401) {
      signOut(error.message);
      return true;
    }
    return false;
  },
};

const list = new TaskList(session);
const start = new StartForm(session, { started: openTask });
const task = new TaskPage(session, { changed: () => list.refresh() });

function begin() {
  $("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    trySignIn($("key").value.trim());
  });
  $("sign-out").addEventListener("click", () => signOut(""));
  window.addEventListener("hashchange", route);
  const key = sessionStorage.getItem(KEY_PLACE);
  if (key) enter(key);
  else showSignIn("");
}

async function trySignIn(key) {
  const button = $("sign-in").querySelector("button");
  button.disabled = true;
  setText("sign-in-error", "");
  try {
    await new Api(key).tasks({ limit: 1 });
    enter(key);
  } catch (error) {
    setText("sign-in-error", error.message);
    $("key").select();
  } finally {
    button.disabled = false;
  }
}

function enter(key) {
  sessionStorage.setItem(KEY_PLACE, key);
  session.api = new Api(key);
  $("key").value = "";
  $("sign-in").hidden = true;
  for (const id of ["desk", "sign-out", "to-start"]) $(id).hidden = false;
  list.show();
  route();
}

function signOut(why) {
  sessionStorage.removeItem(KEY_PLACE);
  session.api = null;
  list.hide();
  task.hide();
  start.hide();
  showSignIn(why);
}

function showSignIn(why) {
  for (const id of ["desk", "sign-out", "to-start"]) $(id).hidden = true;
  $("sign-in").hidden = false;
  document.documentElement.dataset.page = "sign-in";
  document.title = "Sign in · worker";
  setText("sign-in-error", why);
  $("key").focus();
}

function route() {
  if (!session.api) return;
  const [, page, id] = /^#\/(start|tasks)?(?:\/([^/]+))?$/.exec(window.location.hash) ?? [];
  const shown = page === "tasks" && id ? "task" : page === "start" ? "start" : "list";
  document.documentElement.dataset.page = shown;
  $("nothing").hidden = shown !== "list";
  if (shown !== "task") task.hide();
  if (shown !== "start") start.hide();
  const taskId = shown === "task" ? decode(id) : null;
  list.choose(taskId);
  if (shown === "task") task.show(taskId);
  if (shown === "start") start.show();
  if (shown === "list") document.title = "Tasks · worker";
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function openTask(id) {
  list.refresh();
  window.location.hash = `#/tasks/${encodeURIComponent(id)}`;
}

begin();
