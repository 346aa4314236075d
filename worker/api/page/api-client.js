/** Requests to the API, with the key in a header, and their errors as text for the user. */

import { fetchStreamUrl } from "../live/live-view.js";

const TASKS = "api/v1/tasks";
const FINAL = new Set(["success", "failed", "cancelled"]);

/**
 * A task as the API returns it; the list omits `input_parameters`, `output` and `error`.
 *
 * @typedef {object} Task
 * @property {string} task_id
 * @property {string} endpoint_name
 * @property {"queued"|"running"|import("../live/live-view.js").Outcome} status
 * @property {string} created_at  ISO 8601, as are the other times
 * @property {string|null} started_at
 * @property {string|null} finished_at
 * @property {number|null} exit_code
 * @property {Record<string, unknown>} [input_parameters]
 * @property {unknown} [output]
 * @property {boolean} [output_omitted]  the output was larger than what the runner keeps
 * @property {{type?: string, message?: string, traceback?: string}|null} [error]
 *
 * @typedef {object} TaskRequest
 * @property {string} endpoint_name
 * @property {Record<string, unknown>} input_parameters
 * @property {number} [timeout_s]
 * @property {string} [callback_url]
 *
 * @typedef {object} FieldError  one problem of a request, e.g. in `input_parameters.url`
 * @property {string|null} field  such as "input_parameters"; null if it is not known
 * @property {string|null} name   the parameter in it, such as "url"
 * @property {string} message
 */

/** @param {Task} task */
export function isOver(task) {
  return FINAL.has(task.status);
}

/** A request failed; `message` can be shown to the user. */
export class ApiError extends Error {
  /**
   * @param {number} status  the HTTP status; 0 if there was no answer
   * @param {string} message
   * @param {{fields?: FieldError[], retryAfterS?: number|null}} [details]
   *   the problems that a 422 lists, and the seconds of Retry-After
   */
  constructor(status, message, { fields = [], retryAfterS = null } = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
    this.retryAfterS = retryAfterS;
  }
}

/** The API with the key of one account. Its methods reject with {@link ApiError}. */
export class ApiClient {
  #key;

  /** @param {string} key */
  constructor(key) {
    this.#key = key;
  }

  /**
   * One page of the account's tasks, newest first.
   *
   * @param {{status?: string, cursor?: string|null, limit: number, signal?: AbortSignal}} options
   * @returns {Promise<{tasks: Task[], next_cursor: string|null}>}
   */
  tasks({ status = "", cursor = null, limit, signal }) {
    const parameters = new URLSearchParams({ limit: String(limit) });
    if (status) parameters.set("status", status);
    if (cursor) parameters.set("cursor", cursor);
    return this.#json(`${TASKS}?${parameters}`, { signal });
  }

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   * @returns {Promise<Task>}
   */
  task(id, signal) {
    return this.#json(taskPath(id), { signal });
  }

  /**
   * Start a task; returns its id. A second request with the same `idempotencyKey` returns the same id.
   *
   * @param {TaskRequest} request
   * @param {string} idempotencyKey
   * @returns {Promise<string>}
   */
  async start(request, idempotencyKey) {
    const body = JSON.stringify(request);
    const headers = { "content-type": "application/json", "idempotency-key": idempotencyKey };
    return (await this.#json("api/v1/inference", { method: "POST", headers, body })).task_id;
  }

  /** @returns {Promise<string[]>} the names of the endpoints */
  async endpoints() {
    return (await this.#json("api/v1/endpoints")).endpoints;
  }

  /** @param {string} id */
  cancel(id) {
    return this.#json(`${taskPath(id)}/cancel`, { method: "POST" });
  }

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   * @returns {Promise<Array<{name: string, size_bytes: number}>>}
   */
  async artifacts(id, signal) {
    return (await this.#json(`${taskPath(id)}/artifacts`, { signal })).artifacts;
  }

  /**
   * @param {string} id
   * @param {string} name
   * @returns {Promise<Blob>}
   */
  async artifact(id, name) {
    const path = name.split("/").map(pathSegment).join("/");
    return this.#body(`${taskPath(id)}/artifacts/${path}`, {}, (response) => response.blob());
  }

  /**
   * A fresh stream URL; rejects as {@link fetchStreamUrl} does.
   *
   * @param {string} id
   * @param {import("../live/live-view.js").Role} role
   * @param {AbortSignal} signal
   */
  streamUrl(id, role, signal) {
    const headers = { "x-api-key": this.#key };
    const parameters = role === "control" ? "?role=control" : "";
    return fetchStreamUrl(`${taskPath(id)}/stream${parameters}`, { headers, signal });
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  #json(path, options = {}) {
    return this.#body(path, options, (response) => response.json());
  }

  /**
   * Reading a body fails if the connection breaks, or if a proxy answered in place of the API.
   *
   * @template T
   * @param {string} path
   * @param {RequestInit} options
   * @param {(response: Response) => Promise<T>} read
   */
  async #body(path, options, read) {
    const response = await this.#send(path, options);
    try {
      return await read(response);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new ApiError(0, "The API's answer could not be read.");
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  async #send(path, { headers, ...options }) {
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
    throw await toApiError(response);
  }
}

/** @param {string} id */
function taskPath(id) {
  return `${TASKS}/${pathSegment(id)}`;
}

/**
 * Browsers resolve `.` and `..` in a URL's path even if they are percent-encoded.
 *
 * @param {string} name
 */
function pathSegment(name) {
  if (name === "." || name === "..") throw new ApiError(404, `${name} not found`);
  return encodeURIComponent(name);
}

/** @param {Response} response */
async function toApiError(response) {
  const { detail } = await response.json().catch(() => ({})) ?? {};
  const retryAfterS = Number.parseInt(response.headers.get("retry-after") ?? "", 10) || null;
  const message = typeof detail === "string" ? detail : `The API answered HTTP ${response.status}.`;
  const fields = response.status === 422 ? fieldErrors(message) : [];
  return new ApiError(response.status, message, { fields, retryAfterS });
}

/**
 * The parts of "timeout_s: must be …; input_parameters.url: is missing".
 *
 * @param {string} detail
 * @returns {FieldError[]}
 */
function fieldErrors(detail) {
  return detail.split(/; (?=[a-z_]+(?:\.[^:;]+)?: )/).map((part) => {
    const [, field, name, message] = /^([a-z_]+)(?:\.([^:;]+))?: (.+)$/s.exec(part) ?? [];
    return field ? { field, name: name ?? null, message } : { field: null, name: null, message: part };
  });
}
