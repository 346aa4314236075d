/** The form that starts a task. */

import { $, setText } from "../live/view-panel.js";
import { make } from "./dom.js";

const RETRY_KEY_BYTES = 16;
/** Where the complaints of a 422 about these parts of the request are shown. */
const PLACES = {
  endpoint_name: ["endpoint", "endpoint-error"],
  input_parameters: ["json", "parameters-error"],
  timeout_s: ["timeout", "timeout-error"],
  callback_url: ["callback", "callback-error"],
};

/** A mistake in the form, to be said at one of its fields. */
class Mistake extends Error {
  constructor(part, message) {
    super(message);
    this.part = part;
  }
}

export class StartForm {
  #session;
  #started;
  /** The same for each try of one request, so that a lost answer does not start a second task. */
  #retryKey = null;

  /**
   * @param {object} session
   * @param {{started: (taskId: string) => void}} calls
   */
  constructor(session, { started }) {
    this.#session = session;
    this.#started = started;
    $("start").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("start").addEventListener("input", () => { this.#retryKey = null; });
    $("add").addEventListener("click", () => addRow().querySelector("input").focus());
    for (const radio of $("start").querySelectorAll('[name="as"]')) {
      radio.addEventListener("change", () => this.#showAs(radio.value));
    }
  }

  show() {
    if (!$("start").hidden) return;
    document.title = "Start a task · worker";
    $("start").hidden = false;
    this.#suggest();
    if ($("parameters").children.length === 0) addRow();
    clearErrors();
    $("endpoint").focus();
  }

  /** The form works without suggestions, so an error here is nobody's business. */
  async #suggest() {
    const names = await this.#session.api.endpoints().catch(() => []);
    $("endpoints").replaceChildren(...names.map((name) => make("option", { value: name })));
  }

  hide() {
    if (!this.#session.api) {
      // Signed out: the next one at this page has no business with what was typed.
      $("start").reset();
      $("parameters").replaceChildren();
      this.#showAs("rows");
      this.#retryKey = null;
    }
    $("start").hidden = true;
  }

  #showAs(form) {
    clearErrors();
    if (form === "json" && $("as-json").hidden) {
      const given = fromRows();
      if (Object.keys(given).length > 0) $("json").value = JSON.stringify(given, null, 2);
    } else if (form === "rows" && $("as-rows").hidden) {
      try {
        toRows(fromJson());
      } catch (error) {
        // What rows cannot hold stays as it is.
        $("start").elements.as.value = "json";
        showMistake(error);
        return;
      }
    }
    $("as-rows").hidden = form !== "rows";
    $("as-json").hidden = form !== "json";
  }

  async #submit() {
    clearErrors();
    const { api } = this.#session;
    try {
      const request = readRequest();
      $("submit").disabled = true;
      this.#retryKey ??= randomKey();
      const taskId = await api.start(request, this.#retryKey);
      this.#retryKey = null;
      this.#started(taskId);
    } catch (error) {
      if (error instanceof Mistake) showMistake(error);
      else if (error.status !== undefined) this.#refused(error);
      else throw error;
    } finally {
      $("submit").disabled = false;
    }
  }

  #refused(error) {
    if (this.#session.failed(error)) return;
    if (error.status !== 0) this.#retryKey = null;
    if (error.status === 404) {
      showMistake(new Mistake("endpoint_name", error.message));
    } else if (error.status === 429) {
      const when = error.retryAfterS ? `in ${error.retryAfterS} s` : "in a moment";
      setText("start-error", `${error.message.replace(/\.?$/, ".")} Try again ${when}.`);
    } else if (error.fields.length > 0) {
      error.fields.forEach(showComplaint);
      $("start").querySelector('[aria-invalid="true"]')?.focus();
    } else {
      setText("start-error", error.message);
    }
  }
}

/** `randomUUID` is only there on HTTPS and localhost. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(RETRY_KEY_BYTES));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function readRequest() {
  const endpoint = $("endpoint").value.trim();
  if (!endpoint) throw new Mistake("endpoint_name", "Which endpoint?");
  const parameters = $("as-json").hidden ? fromRows() : fromJson();
  const request = { endpoint_name: endpoint, input_parameters: parameters };
  const timeout = $("timeout").value.trim();
  if (timeout) {
    request.timeout_s = Number(timeout);
    if (!(request.timeout_s > 0)) throw new Mistake("timeout_s", "A number of seconds, more than 0.");
  }
  const callback = $("callback").value.trim();
  if (callback) request.callback_url = callback;
  return request;
}

function fromRows() {
  const given = {};
  for (const row of $("parameters").children) {
    const [name, value] = [...row.querySelectorAll("input")].map((input) => input.value);
    const key = name.trim();
    if (!key && !value) continue;
    if (!key) throw new Mistake("input_parameters", `Which parameter is “${value}”?`);
    if (!Object.hasOwn(given, key)) define(given, key, value);
    else define(given, key, [given[key], value].flat());
  }
  return given;
}

/** `__proto__` is a name like any other here. */
function define(object, key, value) {
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
}

function fromJson() {
  const text = $("json").value.trim() || "{}";
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Mistake("input_parameters", `This is not JSON: ${error.message}`);
  }
  if (given === null || typeof given !== "object" || Array.isArray(given)) {
    throw new Mistake("input_parameters", 'A JSON object is wanted, for example {"query": "shoes"}.');
  }
  return given;
}

function toRows(given) {
  const pairs = Object.entries(given).flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
  if (pairs.some(([, value]) => typeof value !== "string")) {
    throw new Mistake("input_parameters", "Only texts, and lists of them, can be shown as rows.");
  }
  $("parameters").replaceChildren();
  for (const pair of pairs.length > 0 ? pairs : [["", ""]]) addRow(...pair);
}

function addRow(name = "", value = "") {
  const box = (label, text, className) => {
    const input = make("input", {
      class: className, "aria-label": label, placeholder: label.toLowerCase().split(" ").at(-1),
      autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    });
    input.value = text;
    return input;
  };
  const remove = make("button", { type: "button", class: "icon", "aria-label": "Remove this parameter" }, "×");
  const row = make("div", { class: "row" },
    box("Parameter name", name, "parameter-name"), box("Parameter value", value, "parameter-value"), remove);
  remove.addEventListener("click", () => {
    row.remove();
    if ($("parameters").children.length === 0) addRow();
    $("add").focus();
  });
  $("parameters").append(row);
  return row;
}

function clearErrors() {
  for (const element of $("start").querySelectorAll(".wrong")) element.textContent = "";
  for (const element of $("start").querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
}

function showMistake({ part, message }) {
  showComplaint({ place: part, name: null, message });
  $("start").querySelector('[aria-invalid="true"]')?.focus();
}

function showComplaint({ place, name, message }) {
  const [input, error] = PLACES[place] ?? [null, "start-error"];
  const before = $(error).textContent;
  setText(error, [before, name ? `${name}: ${message}` : message].filter(Boolean).join("\n"));
  if (input === null) return;
  if ($(input).closest("details")) $("more").open = true;
  let marked = [$(input)];
  if (input === "json" && $("as-json").hidden) {
    marked = [...$("parameters").children].map((row) => row.querySelector("input"));
    // A missing one stands in no row yet.
    if (name) marked = marked.filter((box) => box.value.trim() === name);
  }
  for (const box of marked) box.setAttribute("aria-invalid", "true");
}
