/** The API as the dashboard uses it: requests with the key in a header, and what went wrong in words. */

import { fetchStreamUrl } from "../live/live-view.js";

const TASKS = "api/v1/tasks";
const FINAL = new Set(["success", "failed", "cancelled"]);

/** Whether a task is over. */
export function isOver(task) {
  return FINAL.has(task.status);
}

/**
 * An answer that is not what was asked for; `message` can be shown.
 *
 * `status` is the HTTP status, 0 when nobody answered. `fields` are the complaints of a 422:
 * `{place: "input_parameters", name: "url", message}`. `retryAfterS` is what the server asked for.
 */
export class ApiError extends Error {
  constructor(status, message, { fields = [], retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, fields, retryAfterS });
  }
}

/** One account's view of the API. */
export class Api {
  #key;

  constructor(key) {
    this.#key = key;
  }

  /** @returns {Promise<{tasks: object[], next_cursor: string|null}>} one page, newest first */
  tasks({ status = "", cursor = null, limit, signal }) {
    const query = new URLSearchParams({ limit });
    if (status) query.set("status", status);
    if (cursor) query.set("cursor", cursor);
    return this.#json(`${TASKS}?${query}`, { signal });
  }

  task(id, signal) {
    return this.#json(address(id), { signal });
  }

  /** @returns {Promise<string>} the new task's id; the same again for the same `retryKey` */
  async start(request, retryKey) {
    const body = JSON.stringify(request);
    const headers = { "content-type": "application/json", "idempotency-key": retryKey };
    return (await this.#json("api/v1/inference", { method: "POST", headers, body })).task_id;
  }

  /** @returns {Promise<string[]>} the names that {@link start} knows */
  async endpoints() {
    return (await this.#json("api/v1/endpoints")).endpoints;
  }

  cancel(id) {
    return this.#json(`${address(id)}/cancel`, { method: "POST" });
  }

  /** @returns {Promise<Array<{name: string, size_bytes: number}>>} */
  async artifacts(id, signal) {
    return (await this.#json(`${address(id)}/artifacts`, { signal })).artifacts;
  }

  async artifact(id, name) {
    const path = name.split("/").map(segment).join("/");
    return this.#body(`${address(id)}/artifacts/${path}`, {}, (response) => response.blob());
  }

  /** A fresh stream URL, as the live view wants it. */
  streamUrl(id, role, signal) {
    const headers = { "x-api-key": this.#key };
    // Without a role the address is the reference's own.
    const query = role === "control" ? "?role=control" : "";
    return fetchStreamUrl(`${address(id)}/stream${query}`, { headers, signal });
  }

  #json(path, options = {}) {
    return this.#body(path, options, (response) => response.json());
  }

  /** A body can break off, or come from something in between that is not the API. */
  async #body(path, options, read) {
    const response = await this.#send(path, options);
    try {
      return await read(response);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ApiError(0, "The API's answer could not be read.");
    }
  }

  async #send(path, { headers = {}, ...options }) {
    let response;
    try {
      response = await fetch(path, {
        ...options, headers: { ...headers, "x-api-key": this.#key }, cache: "no-store",
        credentials: "omit", redirect: "error",
      });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ApiError(0, "The API does not answer.");
    }
    if (response.ok) return response;
    throw await asError(response);
  }
}

function address(id) {
  return `${TASKS}/${segment(id)}`;
}

/** One part of a path. However `..` is written, a URL with it would lead elsewhere in the API. */
function segment(name) {
  if (name === "." || name === "..") throw new ApiError(404, `${name} not found`);
  return encodeURIComponent(name);
}

async function asError(response) {
  const { detail } = await response.json().catch(() => ({})) ?? {};
  const retryAfterS = Number.parseInt(response.headers.get("retry-after") ?? "", 10) || null;
  const message = typeof detail === "string" ? detail : `The API answered HTTP ${response.status}.`;
  const fields = response.status === 422 ? complaints(message) : [];
  return new ApiError(response.status, message, { fields, retryAfterS });
}

/** The parts of "timeout_s: must be …; input_parameters.url: is missing". */
function complaints(detail) {
  return detail.split(/; (?=[a-z_]+(?:\.[^:;]+)?: )/).map((part) => {
    const [, place, name, message] = /^([a-z_]+)(?:\.([^:;]+))?: (.+)$/s.exec(part) ?? [];
    return place ? { place, name: name ?? null, message } : { place: null, name: null, message: part };
  });
}

/**
 * Ask again and again, at a pace that fits: not while the page is hidden, and slower after errors.
 *
 * `ask(signal)` does one round and answers the pause until the next in ms, or null for none.
 */
export class Poller {
  #ask;
  #failed;
  #timer = null;
  #round = null;
  #failures = 0;

  constructor(ask, failed) {
    this.#ask = ask;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible" && this.#round) this.now();
    });
    window.addEventListener("online", () => this.#round && this.now());
  }

  /** Ask at once; a round that still hangs is dropped. */
  now() {
    this.stop();
    const round = new AbortController();
    this.#round = round;
    this.#run(round);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#round?.abort();
    this.#round = null;
  }

  async #run(round) {
    let pauseMs;
    try {
      pauseMs = await this.#ask(round.signal);
      if (round.signal.aborted) return;
      this.#failures = 0;
      this.#failed(null);
    } catch (error) {
      if (round.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      pauseMs = Math.max(Math.min(1000 * 2 ** this.#failures++, 15_000), (error.retryAfterS ?? 0) * 1000);
      if (this.#failed(error)) return;
    }
    // A hidden page asks again when it is seen.
    if (pauseMs === null || document.visibilityState === "hidden") return;
    this.#timer = setTimeout(() => this.#run(round), pauseMs);
  }
}
