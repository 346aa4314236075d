/** The form that starts a task. */

import { byId, childElements, create, query, setText } from "../live/dom.js";
import { apiOf } from "./account.js";
import { ApiError } from "./api-client.js";

/**
 * @typedef {import("./api-client.js").FieldError} FieldError
 * @typedef {Record<string, unknown>} InputParameters
 */

const IDEMPOTENCY_KEY_BYTES = 16;
/** The ids of the input and the error text of each field of a request. */
const FIELD_ELEMENTS = new Map([
  ["endpoint_name", { input: "endpoint", errorText: "endpoint-error" }],
  ["input_parameters", { input: "json", errorText: "parameters-error" }],
  ["timeout_s", { input: "timeout", errorText: "timeout-error" }],
  ["callback_url", { input: "callback", errorText: "callback-error" }],
]);
const FORM_ELEMENTS = { input: null, errorText: "start-error" };

/** The form has an invalid value. */
class InvalidField extends Error {
  /**
   * @param {string} field  of the request
   * @param {string} message
   */
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

export class StartForm {
  #account;
  #onStarted;
  /**
   * The same for each attempt of one request, so that a retry after a lost answer starts no second task.
   *
   * @type {string|null}
   */
  #idempotencyKey = null;
  #form = byId("start", HTMLFormElement);

  /**
   * @param {import("./account.js").Account} account
   * @param {{onStarted: (taskId: string) => void}} calls
   */
  constructor(account, { onStarted }) {
    this.#account = account;
    this.#onStarted = onStarted;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("input", () => { this.#idempotencyKey = null; });
    byId("add").addEventListener("click", () => query(addRow(), "input").focus());
    for (const radio of this.#form.querySelectorAll('[name="as"]')) {
      radio.addEventListener("change", () => this.#showAs(/** @type {HTMLInputElement} */ (radio).value));
    }
  }

  show() {
    if (!this.#form.hidden) return;
    document.title = "Start a task · worker";
    this.#form.hidden = false;
    this.#suggestEndpoints();
    if (byId("parameters").children.length === 0) addRow();
    clearErrors();
    byId("endpoint").focus();
  }

  /** The form is usable without suggestions, so an error is ignored. */
  async #suggestEndpoints() {
    const names = await apiOf(this.#account).endpoints().catch(() => []);
    byId("endpoints").replaceChildren(...names.map((name) => create("option", { value: name })));
  }

  hide() {
    if (!this.#account.api) {
      // Signed out: the input must not be visible to the next account.
      this.#form.reset();
      byId("parameters").replaceChildren();
      this.#showAs("rows");
      this.#idempotencyKey = null;
    }
    this.#form.hidden = true;
  }

  /** @param {string} format  "rows" or "json" */
  #showAs(format) {
    clearErrors();
    if (format === "json" && byId("as-json").hidden) {
      const parameters = readRows();
      if (Object.keys(parameters).length > 0) jsonText().value = JSON.stringify(parameters, null, 2);
    } else if (format === "rows" && byId("as-rows").hidden) {
      try {
        showRows(readJson());
      } catch (error) {
        if (!(error instanceof InvalidField)) throw error;
        // Rows cannot hold these values, so the JSON stays.
        query(this.#form, '[name="as"][value="json"]', HTMLInputElement).checked = true;
        showInvalid(error);
        return;
      }
    }
    byId("as-rows").hidden = format !== "rows";
    byId("as-json").hidden = format !== "json";
  }

  async #submit() {
    clearErrors();
    const submit = byId("submit", HTMLButtonElement);
    try {
      const request = readRequest();
      submit.disabled = true;
      this.#idempotencyKey ??= randomKey();
      const taskId = await apiOf(this.#account).start(request, this.#idempotencyKey);
      this.#idempotencyKey = null;
      this.#onStarted(taskId);
    } catch (error) {
      if (error instanceof InvalidField) showInvalid(error);
      else if (error instanceof ApiError) this.#showRefusal(error);
      else throw error;
    } finally {
      submit.disabled = false;
    }
  }

  /** @param {ApiError} error */
  #showRefusal(error) {
    if (this.#account.handleError(error)) return;
    if (error.status !== 0) this.#idempotencyKey = null;
    if (error.status === 404) {
      showInvalid(new InvalidField("endpoint_name", error.message));
    } else if (error.status === 429) {
      const when = error.retryAfterS ? `in ${error.retryAfterS} s` : "in some seconds";
      setText("start-error", `${error.message.replace(/\.?$/, ".")} Try again ${when}.`);
    } else if (error.fields.length > 0) {
      error.fields.forEach(showFieldError);
      focusFirstInvalid();
    } else {
      setText("start-error", error.message);
    }
  }
}

/** `crypto.randomUUID` exists on HTTPS and localhost only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(IDEMPOTENCY_KEY_BYTES));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function jsonText() {
  return byId("json", HTMLTextAreaElement);
}

/** @param {string} id */
function trimmedValue(id) {
  return byId(id, HTMLInputElement).value.trim();
}

function readRequest() {
  const endpoint = trimmedValue("endpoint");
  if (!endpoint) throw new InvalidField("endpoint_name", "Enter an endpoint.");
  const parameters = byId("as-json").hidden ? readRows() : readJson();
  /** @type {import("./api-client.js").TaskRequest} */
  const request = { endpoint_name: endpoint, input_parameters: parameters };
  const timeout = trimmedValue("timeout");
  if (timeout) {
    request.timeout_s = Number(timeout);
    if (!(request.timeout_s > 0)) throw new InvalidField("timeout_s", "Enter a number greater than 0.");
  }
  const callback = trimmedValue("callback");
  if (callback) request.callback_url = callback;
  return request;
}

/** @returns {InputParameters} */
function readRows() {
  const parameters = {};
  for (const row of byId("parameters").children) {
    const [name, value] = rowInputs(row).map((input) => input.value);
    const key = name.trim();
    if (!key && !value) continue;
    if (!key) throw new InvalidField("input_parameters", `Enter a name for the value “${value}”.`);
    if (!Object.hasOwn(parameters, key)) define(parameters, key, value);
    else define(parameters, key, [/** @type {InputParameters} */ (parameters)[key], value].flat());
  }
  return parameters;
}

/** @param {Element} row */
function rowInputs(row) {
  return [...row.querySelectorAll("input")];
}

/**
 * Assigning to `__proto__` would set the prototype instead of a property.
 *
 * @param {object} object
 * @param {string} key
 * @param {unknown} value
 */
function define(object, key, value) {
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
}

/** @returns {InputParameters} */
function readJson() {
  const text = jsonText().value.trim() || "{}";
  let parameters;
  try {
    parameters = JSON.parse(text);
  } catch (error) {
    throw new InvalidField("input_parameters", `Invalid JSON: ${/** @type {Error} */ (error).message}`);
  }
  if (parameters === null || typeof parameters !== "object" || Array.isArray(parameters)) {
    throw new InvalidField("input_parameters", 'Enter a JSON object, for example {"query": "shoes"}.');
  }
  return parameters;
}

/** @param {InputParameters} parameters */
function showRows(parameters) {
  /** @type {Array<[string, string]>} */
  const pairs = [];
  for (const [name, values] of Object.entries(parameters)) {
    for (const value of [values].flat()) {
      if (typeof value !== "string") {
        throw new InvalidField("input_parameters", "Rows can hold only strings and lists of strings.");
      }
      pairs.push([name, value]);
    }
  }
  byId("parameters").replaceChildren();
  if (pairs.length === 0) addRow();
  for (const [name, value] of pairs) addRow(name, value);
}

function addRow(name = "", value = "") {
  const remove = create("button",
    { type: "button", class: "icon", "aria-label": "Remove this parameter" }, "×");
  const row = create("div", { class: "row" },
    createInput("Parameter name", name, "parameter-name"),
    createInput("Parameter value", value, "parameter-value"), remove);
  remove.addEventListener("click", () => {
    row.remove();
    if (byId("parameters").children.length === 0) addRow();
    byId("add").focus();
  });
  byId("parameters").append(row);
  return row;
}

/**
 * @param {string} label
 * @param {string} value
 * @param {string} className
 */
function createInput(label, value, className) {
  const input = create("input", {
    class: className, "aria-label": label, placeholder: label.toLowerCase().split(" ").at(-1) ?? "",
    autocomplete: "off", autocapitalize: "off", spellcheck: "false",
  });
  input.value = value;
  return input;
}

function clearErrors() {
  for (const element of byId("start").querySelectorAll(".wrong")) element.textContent = "";
  for (const element of byId("start").querySelectorAll("[aria-invalid]")) {
    element.removeAttribute("aria-invalid");
  }
}

/** @param {InvalidField} error */
function showInvalid({ field, message }) {
  showFieldError({ field, name: null, message });
  focusFirstInvalid();
}

function focusFirstInvalid() {
  /** @type {HTMLElement|null} */ (byId("start").querySelector('[aria-invalid="true"]'))?.focus();
}

/** @param {FieldError} error */
function showFieldError({ field, name, message }) {
  const { input, errorText } = FIELD_ELEMENTS.get(field ?? "") ?? FORM_ELEMENTS;
  const before = byId(errorText).textContent;
  setText(errorText, [before, name ? `${name}: ${message}` : message].filter(Boolean).join("\n"));
  if (input === null) return;
  if (byId(input).closest("details")) byId("more", HTMLDetailsElement).open = true;
  for (const element of invalidElements(input, name)) element.setAttribute("aria-invalid", "true");
}

/**
 * The inputs to mark: the parameter's rows, or the input itself.
 *
 * @param {string} input
 * @param {string|null} name
 */
function invalidElements(input, name) {
  if (input !== "json" || !byId("as-json").hidden) return [byId(input)];
  const names = childElements(byId("parameters")).map((row) => rowInputs(row)[0]);
  // A missing parameter has no row.
  return name ? names.filter((element) => element.value.trim() === name) : names;
}
