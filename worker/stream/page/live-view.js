/**
 * A live view: shows one task's display in one element, from its first picture to the end of the task.
 *
 * It needs no framework and imports nothing, so that a dashboard can copy this file. The caller provides
 * noVNC's `RFB` (1.3 to 1.7, its default export) and a function that returns a fresh stream URL:
 *
 *     const view = new LiveView(element, {
 *       RFB,
 *       getUrl: (role, signal) =>
 *         fetchStreamUrl(`/api/v1/tasks/${id}/stream`, { signal, headers: { "x-api-key": key } }),
 *     });
 *     view.addEventListener("status", ({ detail }) => render(detail));
 *     view.start();
 *
 * `element` is in the page, positioned (`position: relative`), and has a size; the picture is scaled
 * to fit it. When it is removed from the page the view stops; `view.stop()` stops it earlier.
 * After the end, and while a connection is lost, the last picture stays.
 *
 * Events
 *   status          `detail` is a {@link Status}; also readable at any time as `view.status`
 *   clipboard       `detail.text` was copied in the task's browser (only while having control)
 *   controlrefused  control was not granted; the view continues, or reconnects, without it
 *
 * The WebSocket is opened here and not by noVNC: once connected, noVNC reports any close as
 * `clean: true`, a lost connection too. The close code tells the end of the task from a loss.
 *
 * @typedef {"loading"|"waiting"|"connecting"|"connected"|"reconnecting"|"ended"|"error"} State
 *   loading       not started yet
 *   waiting       there is no stream yet: the task is starting or ending, or the server does not answer
 *   connecting    the stream exists; its first picture has not arrived
 *   connected     the picture is live
 *   reconnecting  the connection was lost; it is retried until `stop()`
 *   ended         the task ended; `outcome` is its result
 *   error         not retried until `start()` is called again; `reason` is the cause
 *
 * @typedef {"view"|"control"} Role
 * @typedef {"success"|"failed"|"cancelled"} Outcome
 *
 * @typedef {object} Status
 * @property {State} state
 * @property {Outcome|null} outcome   how the task ended, if the server reported it
 * @property {number|null} code       the WebSocket close code that led to this state, if any
 * @property {string} reason          the server's text, or this module's where there was none
 * @property {Role|null} role         the role of the live connection
 * @property {boolean} takingControl  control was requested and is not granted yet
 *
 * @typedef {object} Options
 * @property {typeof NoVnc.RFB} RFB  noVNC's class
 * @property {(role: Role, signal: AbortSignal) => Promise<string>} getUrl
 *   called before each connection, since a URL admits one; rejects with {@link StreamUnavailable}
 * @property {number} [qualityLevel]  JPEG quality, 0 to 9 (noVNC's default is 6)
 *
 * @typedef {{code: number|null, reason: string, livedMs: number}} Closed
 *   `code` is null if no Close frame arrived; `livedMs` is 0 if there was no picture
 *
 * @typedef {object} Listener
 * @property {() => void} found  there is a stream URL
 * @property {() => void} connected  the first picture is drawn
 * @property {(text: string) => void} clipboard
 * @property {(error: StreamUnavailable) => void} unavailable
 * @property {(closed: Closed) => void} closed
 */

const CLOSE = { ended: 1000, policy: 1008, displayLost: 1011, restarting: 1012 };
/** @type {Record<string, Outcome|undefined>} */
const OUTCOMES = {
  "task success": "success",
  "task failed": "failed",
  "task cancelled": "cancelled",
};
const TOO_SLOW = "viewer too slow";

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5000;
const WAIT_MAX_MS = 2000;
const TOO_SLOW_RETRY_MS = 5000;
const CONNECT_TIMEOUT_MS = 10_000;
/** noVNC fires "connect" before it has drawn anything, and no event when it has. */
const FIRST_PICTURE_POLL_MS = 40;
const FIRST_PICTURE_TIMEOUT_MS = 5000;
/** A connection that lasted this long resets the retry delay. */
const STABLE_MS = 5000;
/** After a loss the server may still hold the control slot for the lost connection. */
const CONTROL_RETRIES = 2;

/** X11 keysyms and DOM codes. */
const CONTROL_LEFT = { keysym: 0xffe3, code: "ControlLeft" };
const V = { keysym: 0x76, code: "KeyV" };
/** x11vnc takes the X selection only after it has handled the clipboard message; an immediate key is too early. */
const PASTE_DELAY_MS = 150;

/** There is no stream URL. "not-running" and "unreachable" are retried, "refused" is not. */
export class StreamUnavailable extends Error {
  /**
   * @param {"not-running"|"unreachable"|"refused"} kind
   * @param {string} message
   */
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/**
 * Request a fresh stream URL.
 *
 * @param {string|URL} address  answers `{"stream_url": …}`, or `{"detail": …}` with 409 or another error
 * @param {{headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<string>}
 * @throws {StreamUnavailable} 409 is "not-running"; no answer, 429 and 5xx "unreachable"; else "refused"
 */
export async function fetchStreamUrl(address, { headers, signal } = {}) {
  let response;
  let body;
  try {
    response = await fetch(address, { headers, signal, cache: "no-store" });
    body = await response.json().catch(() => ({}));
  } catch {
    throw new StreamUnavailable("unreachable", "no answer from the server");
  }
  if (response.ok && typeof body.stream_url === "string") return body.stream_url;
  const detail = body.detail ?? `HTTP ${response.status}`;
  if (response.status === 409) throw new StreamUnavailable("not-running", detail);
  if (response.status === 429 || response.status >= 500) {
    throw new StreamUnavailable("unreachable", detail);
  }
  throw new StreamUnavailable("refused", detail);
}

export class LiveView extends EventTarget {
  /** @type {HTMLElement} */
  #element;
  /** @type {Required<Options>} */
  #options;
  /** @type {Readonly<Status>} */
  #status = Object.freeze({
    state: "loading", outcome: null, code: null, reason: "", role: null, takingControl: false,
  });

  // At most one live connection, one pending connection and one timer. #halt() clears all three, so that
  // nothing that was abandoned has an effect later.
  /** @type {Connection|null} */
  #live = null;
  /** @type {Connection|null} */
  #pending = null;
  /** @type {number|undefined} */
  #timer = undefined;

  /** @type {Role} */
  #wantedRole = "view";
  #everConnected = false;
  #failures = 0;
  #controlFailures = 0;
  /** Stops the stream of an element that was removed without `stop()`. */
  #removal = new MutationObserver(() => this.#element.isConnected || this.stop());
  /** Holds the last canvas of a closed connection, under the live one. */
  #still = layer("still");

  /**
   * @param {HTMLElement} element
   * @param {Options} options
   */
  constructor(element, { RFB, getUrl, qualityLevel = 6 }) {
    super();
    this.#element = element;
    this.#options = { RFB, getUrl, qualityLevel };
    element.append(this.#still);
  }

  /** @returns {Status} */
  get status() {
    return this.#status;
  }

  /** Connect, from any state; "ended" and "error" are left only by this. */
  start() {
    this.#halt();
    this.#wantedRole = "view";
    this.#everConnected = false;
    this.#failures = 0;
    this.#set({ state: "loading", outcome: null, code: null, reason: "" });
    this.#watchRemoval();
    this.#connect();
  }

  /** Disconnect and remove the picture. */
  stop() {
    this.#removal.disconnect();
    this.#halt();
    this.#still.replaceChildren();
    this.#set({ state: "loading", outcome: null, code: null, reason: "" });
  }

  /**
   * Enter the state "ended" without a close code, when the end of the task is known from another source:
   * a worker that was lost sends no Close frame. The last picture stays.
   *
   * @param {Outcome|null} outcome
   */
  end(outcome) {
    if (this.#status.state === "ended") return;
    this.#stopWith({ state: "ended", outcome, code: null, reason: "" });
  }

  /** Connect now instead of at the end of the retry delay. No effect unless a delay is running. */
  retryNow() {
    if (this.#timer !== undefined) this.#connect();
  }

  /** Request control. Viewing continues until it is granted, and if it is refused. */
  takeControl() {
    if (this.#live?.role !== "view" || this.#pending) return;
    this.#wantedRole = "control";
    this.#controlFailures = CONTROL_RETRIES;
    this.#connect();
  }

  /** Release control and continue viewing. */
  releaseControl() {
    if (this.#wantedRole !== "control") return;
    this.#wantedRole = "view";
    if (this.#live?.role === "view") {
      this.#abandonPending();
      this.#set({});
      return;
    }
    this.#halt();
    this.#set({ state: this.#everConnected ? "connecting" : this.#status.state });
    this.#connect();
  }

  /** Release all keys that are pressed in the task's browser, e.g. before the focus moves. */
  releaseKeys() {
    this.#live?.releaseKeys();
  }

  /** Move the keyboard focus to the picture. */
  focus() {
    this.#live?.focus();
  }

  /**
   * Put text on the task's clipboard and press Ctrl+V there. Needs control.
   *
   * @param {string} text
   */
  paste(text) {
    this.#live?.paste(text);
  }

  /** A MutationObserver does not cover shadow trees, so each tree around the element is observed. */
  #watchRemoval() {
    this.#removal.disconnect();
    if (!this.#element.isConnected) return;
    /** @type {Node|undefined} */
    let root = this.#element.getRootNode();
    while (root) {
      this.#removal.observe(root, { childList: true, subtree: true });
      root = root instanceof ShadowRoot ? root.host.getRootNode() : undefined;
    }
  }

  #connect() {
    this.#clearTimer();
    this.#abandonPending();
    const connection = new Connection(this.#element, this.#wantedRole, this.#options, {
      found: () => this.#onFound(),
      connected: () => this.#onConnected(connection),
      clipboard: (text) => this.#emit("clipboard", { text }),
      unavailable: (error) => this.#onUnavailable(error),
      closed: (close) => this.#onClosed(connection, close),
    });
    this.#pending = connection;
    this.#set({});
    connection.open();
  }

  #onFound() {
    const { state } = this.#status;
    if (state === "loading" || state === "waiting") {
      this.#failures = 0;
      this.#set({ state: this.#everConnected ? "reconnecting" : "connecting", code: null, reason: "" });
    }
  }

  /** @param {Connection} connection */
  #onConnected(connection) {
    this.#keepPicture(this.#live);
    this.#live?.abandon();
    this.#live = connection;
    this.#pending = null;
    this.#everConnected = true;
    this.#controlFailures = 0;
    this.#set({ state: "connected", outcome: null, code: null, reason: "" });
  }

  /** @param {StreamUnavailable} error */
  #onUnavailable({ kind, message }) {
    this.#pending = null;
    if (this.#live) {
      this.#controlRefused();
    } else if (kind === "refused") {
      this.#stopWith({ state: "error", code: null, reason: message });
    } else if (kind === "unreachable" && this.#everConnected) {
      this.#retry("reconnecting", { reason: message });
    } else {
      this.#retry("waiting", { reason: message }, WAIT_MAX_MS);
    }
  }

  /**
   * @param {Connection} connection
   * @param {Closed} closed
   */
  #onClosed(connection, { code, reason, livedMs }) {
    if (connection === this.#live) {
      this.#keepPicture(connection);
      this.#live = null;
      if (livedMs > STABLE_MS) this.#failures = 0;
    } else {
      this.#pending = null;
    }
    if (code === CLOSE.ended) {
      this.#stopWith({ state: "ended", outcome: OUTCOMES[reason] ?? null, code, reason });
      return;
    }
    if (this.#live) {
      this.#controlRefused();
      return;
    }
    if (code === CLOSE.displayLost || (code === CLOSE.policy && reason !== TOO_SLOW)) {
      this.#stopWith({ state: "error", code, reason: reason || "refused by the server" });
      return;
    }
    if (this.#pending) {
      // The live connection was lost while control was pending; the pending one replaces it.
      this.#set({ state: "reconnecting", code, reason });
      return;
    }
    const neverOpened = livedMs === 0;
    if (neverOpened && connection.role === "control" && ++this.#controlFailures > CONTROL_RETRIES) {
      this.#controlRefused();
    }
    const fixedMs = reason === TOO_SLOW ? TOO_SLOW_RETRY_MS : null;
    this.#retry("reconnecting", { code, reason }, RETRY_MAX_MS, fixedMs);
  }

  #controlRefused() {
    this.#wantedRole = "view";
    this.#set({});
    this.#emit("controlrefused");
  }

  /**
   * @param {State} state
   * @param {Partial<Status>} cause
   * @param {number} maxMs
   * @param {number|null} fixedMs
   */
  #retry(state, cause, maxMs = RETRY_MAX_MS, fixedMs = null) {
    const backoffMs = Math.min(maxMs, RETRY_FIRST_MS * 2 ** this.#failures++);
    // Jitter spreads the reconnects of many viewers of one server.
    const delayMs = fixedMs ?? backoffMs * (0.7 + 0.3 * Math.random());
    this.#clearTimer();
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    this.#set({ state, code: null, reason: "", ...cause });
  }

  /** @param {Partial<Status>} status */
  #stopWith(status) {
    this.#halt();
    this.#wantedRole = "view";
    this.#set(status);
  }

  #halt() {
    this.#clearTimer();
    this.#abandonPending();
    this.#keepPicture(this.#live);
    this.#live?.abandon();
    this.#live = null;
  }

  #abandonPending() {
    this.#pending?.abandon();
    this.#pending = null;
  }

  #clearTimer() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /**
   * Keeps the canvas itself, not a copy: images of the last update may still be decoding, and noVNC draws
   * them when they are ready, connected or not.
   *
   * @param {Connection|null} connection
   */
  #keepPicture(connection) {
    const canvas = connection?.canvas;
    if (!canvas) return;
    canvas.style.cssText =
      "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;";
    canvas.tabIndex = -1;
    this.#still.replaceChildren(canvas);
  }

  /** @param {Partial<Status>} change */
  #set(change) {
    this.#status = Object.freeze({
      ...this.#status,
      ...change,
      role: this.#live?.role ?? null,
      takingControl: this.#wantedRole === "control" && this.#live?.role !== "control",
    });
    this.#emit("status", this.#status);
  }

  /**
   * @param {string} type
   * @param {object|null} detail
   */
  #emit(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** One connection, from the request for its URL to its close. It reports until it closes or is abandoned. */
class Connection {
  #element;
  #options;
  #listener;
  #over = new AbortController();
  #layer = layer("pending");
  /** @type {WebSocket|null} */
  #socket = null;
  /** @type {NoVnc.RFB|null} */
  #rfb = null;
  /** @type {number|undefined} */
  #timeout = undefined;
  /** @type {number|null} */
  #connectedAt = null;

  /**
   * @param {HTMLElement} element
   * @param {Role} role
   * @param {Required<Options>} options
   * @param {Listener} listener
   */
  constructor(element, role, options, listener) {
    this.#element = element;
    this.role = role;
    this.#options = options;
    this.#listener = listener;
  }

  get canvas() {
    return this.#layer.querySelector("canvas");
  }

  get #livedMs() {
    return this.#connectedAt === null ? 0 : performance.now() - this.#connectedAt;
  }

  async open() {
    const { signal } = this.#over;
    let url;
    try {
      url = await this.#options.getUrl(this.role, signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#over.abort();
      this.#listener.unavailable(/** @type {StreamUnavailable} */ (error));
      return;
    }
    if (signal.aborted) return;
    this.#listener.found();
    try {
      this.#openSocket(url);
    } catch (error) {
      this.#fail(/** @type {Error} */ (error).message);
    }
  }

  /** @param {string} url */
  #openSocket(url) {
    const socket = new WebSocket(url, ["binary"]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    // Added before RFB sets `onclose`, so that this runs while noVNC's canvas is still in the page.
    socket.addEventListener("close", ({ code, reason }) => this.#closed(code, reason), {
      signal: this.#over.signal,
    });
    this.#timeout = setTimeout(() => this.#fail("the server did not answer in time"), CONNECT_TIMEOUT_MS);
    this.#element.append(this.#layer);
    const rfb = new this.#options.RFB(this.#layer, socket, {
      wsProtocols: ["binary"],
      credentials: {},
    });
    this.#rfb = rfb;
    const viewOnly = this.role === "view";
    Object.assign(rfb, {
      viewOnly,
      scaleViewport: true,
      resizeSession: false,
      qualityLevel: this.#options.qualityLevel,
      // The layer beneath is visible until this connection's first picture is drawn.
      background: "transparent",
    });
    this.#on(rfb, "connect", () => this.#awaitPicture(performance.now() + FIRST_PICTURE_TIMEOUT_MS));
    this.#on(rfb, "disconnect", () => this.#fail("the picture could not be decoded"));
    this.#on(rfb, "credentialsrequired", () => rfb.sendCredentials({}));
    this.#on(rfb, "securityfailure", ({ detail }) => this.#refused(detail.reason));
    this.#on(rfb, "clipboard", ({ detail }) => viewOnly || this.#listener.clipboard(fromUtf8(detail.text)));
  }

  abandon() {
    if (this.#over.signal.aborted) return;
    this.releaseKeys();
    this.#end();
    this.#rfb?.disconnect();
    this.#layer.remove();
  }

  releaseKeys() {
    // noVNC releases all keys when the window loses the focus, and has no method for it.
    if (this.role === "control" && this.#rfb) window.dispatchEvent(new Event("blur"));
  }

  focus() {
    this.#rfb?.focus();
  }

  /** @param {string} text */
  paste(text) {
    const rfb = this.#rfb;
    if (this.role !== "control" || !rfb) return;
    rfb.clipboardPasteFrom(toUtf8(text));
    setTimeout(() => {
      if (this.#over.signal.aborted) return;
      rfb.sendKey(CONTROL_LEFT.keysym, CONTROL_LEFT.code, true);
      rfb.sendKey(V.keysym, V.code);
      rfb.sendKey(CONTROL_LEFT.keysym, CONTROL_LEFT.code, false);
    }, PASTE_DELAY_MS);
  }

  /** @param {number} deadline  on performance.now()'s clock */
  #awaitPicture(deadline) {
    clearTimeout(this.#timeout);
    if ((this.canvas && isDrawn(this.canvas)) || performance.now() > deadline) this.#connected();
    else this.#timeout = setTimeout(() => this.#awaitPicture(deadline), FIRST_PICTURE_POLL_MS);
  }

  #connected() {
    this.#connectedAt = performance.now();
    this.#layer.dataset.layer = "live";
    this.#layer.style.visibility = "visible";
    // A viewer's pointer does not act on the picture; a controller's canvas is reachable with Tab.
    this.#layer.style.pointerEvents = this.role === "view" ? "none" : "auto";
    if (this.canvas) this.canvas.tabIndex = this.role === "view" ? -1 : 0;
    this.#listener.connected();
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #closed(code, reason) {
    this.#end();
    this.#listener.closed({ code, reason, livedMs: this.#livedMs });
    // Deferred: noVNC's close handler runs after this one and accesses its elements.
    setTimeout(() => this.#layer.remove());
  }

  /**
   * Close without a Close frame from the server.
   *
   * @param {string} reason
   */
  #fail(reason) {
    this.#disconnect();
    this.#listener.closed({ code: null, reason, livedMs: this.#livedMs });
  }

  /** @param {string|undefined} reason */
  #refused(reason = "the server refused this viewer") {
    this.#disconnect();
    this.#listener.unavailable(new StreamUnavailable("refused", reason));
  }

  #disconnect() {
    this.#end();
    this.#socket?.close();
    setTimeout(() => this.#layer.remove());
  }

  #end() {
    this.#over.abort();
    clearTimeout(this.#timeout);
  }

  /**
   * Adds a listener until this connection is over; noVNC's `addEventListener` takes no `signal`.
   *
   * @template {keyof NoVnc.EventDetails} Name
   * @param {NoVnc.RFB} rfb
   * @param {Name} type
   * @param {(event: CustomEvent<NoVnc.EventDetails[Name]>) => void} listener
   */
  #on(rfb, type, listener) {
    rfb.addEventListener(type, (event) => {
      if (!this.#over.signal.aborted) listener(event);
    });
  }
}

/**
 * RFB's clipboard message holds bytes, which noVNC maps to the characters U+0000 to U+00FF. x11vnc passes
 * them unchanged, and Chromium reads and writes them as UTF-8.
 *
 * @param {string} text
 */
function toUtf8(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** @param {string} bytes */
function fromUtf8(bytes) {
  const codes = Array.from(bytes, (character) => character.codePointAt(0) ?? 0);
  if (codes.some((code) => code > 0xff)) return bytes;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(codes));
  } catch {
    return bytes;
  }
}

/**
 * A new canvas is transparent; every pixel that noVNC draws is opaque.
 *
 * @param {HTMLCanvasElement} canvas
 */
function isDrawn(canvas) {
  const sample = new OffscreenCanvas(1, 1).getContext("2d");
  if (!sample) return true;
  sample.drawImage(canvas, 0, 0, 1, 1);
  return sample.getImageData(0, 0, 1, 1).data[3] > 0;
}

/** @param {"pending"|"still"} name */
function layer(name) {
  const element = document.createElement("div");
  element.dataset.layer = name;
  const hidden = name === "pending" ? "visibility: hidden; " : "";
  element.style.cssText = `${hidden}position: absolute; inset: 0; overflow: hidden; pointer-events: none;`;
  return element;
}
