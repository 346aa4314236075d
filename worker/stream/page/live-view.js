/**
 * A live view: one task's display in one element, from its first picture to the task's end.
 *
 * Framework-free and without imports, so that a dashboard can copy this file. Bring noVNC's `RFB`
 * (1.3 to 1.7, its default export) and a function that answers a fresh stream URL:
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
 * to fit it. When it is removed from the page the view stops by itself; `view.stop()` does it sooner.
 * After the end, or while a connection is lost, the last picture stays.
 *
 * Events
 *   status          `detail` is a {@link Status}; also readable at any time as `view.status`
 *   clipboard       `detail.text` was copied in the task's browser (only while having control)
 *   controlrefused  control could not be had; the view goes on, or is coming back, without it
 *
 * Why the WebSocket is opened here and not by noVNC: once connected, noVNC reports any close as
 * `clean: true`, a lost connection too. The close code tells the end of the task from a loss.
 *
 * @typedef {"loading"|"waiting"|"connecting"|"connected"|"reconnecting"|"ended"|"error"} State
 *   loading       not started yet
 *   waiting       there is no stream yet: the task is starting or ending, or nobody answers
 *   connecting    the stream is there, and its first picture on the way
 *   connected     the picture is live
 *   reconnecting  the connection was lost, and is being tried again until `stop()`
 *   ended         the task ended; `outcome` says how
 *   error         tried no more, until `start()` is called again; `reason` says why
 *
 * @typedef {object} Status
 * @property {State} state
 * @property {"success"|"failed"|"cancelled"|null} outcome  how the task ended, if the server said
 * @property {number|null} code  the WebSocket close code behind this state, if there was one
 * @property {string} reason     the server's own words, or ours where it had none
 * @property {"view"|"control"|null} role  the role of the live connection
 * @property {boolean} takingControl       control was asked for and is not here yet
 */

const CLOSE = { ended: 1000, policy: 1008, displayLost: 1011, restarting: 1012 };
const OUTCOMES = {
  "task success": "success",
  "task failed": "failed",
  "task cancelled": "cancelled",
};
const TOO_SLOW = "viewer too slow";

const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 5000;
const WAIT_MAX_MS = 2000;
const TOO_SLOW_PAUSE_MS = 5000;
const CONNECT_TIMEOUT_MS = 10_000;
/** noVNC says "connect" before it has anything to show, and does not say when it has. */
const FIRST_PICTURE_POLL_MS = 40;
const FIRST_PICTURE_TIMEOUT_MS = 5000;
/** A connection that lived this long starts its retries afresh. */
const STABLE_MS = 5000;
/** After a loss the server may need a moment to see that its controller is gone. */
const CONTROL_RETRIES = 2;

const KEY = { controlLeft: [0xffe3, "ControlLeft"], v: [0x76, "KeyV"] };
/** x11vnc takes the selection over after the clipboard message; a key sent at once comes too early. */
const PASTE_PAUSE_MS = 150;

/** Why there is no stream URL. `kind`: "not-running" and "unreachable" are tried again, "refused" not. */
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
 * Ask an endpoint for a fresh stream URL.
 *
 * @param {string|URL} address  answers `{"stream_url": …}`, or `{"detail": …}` with 409 or another error
 * @param {{headers?: object, signal?: AbortSignal}} [options]
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
  #element;
  #options;
  #status = Object.freeze({
    state: "loading", outcome: null, code: null, reason: "", role: null, takingControl: false,
  });

  // Every way on goes through these three, and #halt() clears them all: at most one live connection,
  // one on its way, one timer. Nothing that was abandoned can act later.
  #live = null;
  #pending = null;
  #timer = null;

  #wantedRole = "view";
  #everConnected = false;
  #failures = 0;
  #controlFailures = 0;
  /** A removed element that went on streaming would be a leak that nobody sees. */
  #removal = new MutationObserver(() => this.#element.isConnected || this.stop());
  /** Holds the last canvas of a closed connection, under the live one. */
  #still = layer("still");

  /**
   * @param {HTMLElement} element
   * @param {object} options
   * @param {Function} options.RFB  noVNC's class
   * @param {(role: "view"|"control", signal: AbortSignal) => Promise<string>} options.getUrl
   *   called before each connection, for a URL is good for one; rejects with {@link StreamUnavailable}
   * @param {number} [options.qualityLevel]  JPEG quality, 0 to 9 (noVNC's default is 6)
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

  /** Connect, whatever was before. Also the way back from "ended" and "error". */
  start() {
    this.#halt();
    this.#wantedRole = "view";
    this.#everConnected = false;
    this.#failures = 0;
    this.#set({ state: "loading", outcome: null, code: null, reason: "" });
    this.#watchRemoval();
    this.#connect();
  }

  /** Disconnect for good and take the picture away. */
  stop() {
    this.#removal.disconnect();
    this.#halt();
    this.#still.replaceChildren();
    this.#set({ state: "loading", outcome: null, code: null, reason: "" });
  }

  /**
   * Say that the task ended, where that is known from elsewhere: no server is left to say it once the
   * worker is gone. The last picture stays.
   *
   * @param {"success"|"failed"|"cancelled"|null} outcome
   */
  end(outcome) {
    if (this.#status.state === "ended") return;
    this.#stopWith({ state: "ended", outcome, code: null, reason: "" });
  }

  /** Try at once instead of at the end of the pause. Does nothing unless a pause is running. */
  retryNow() {
    if (this.#timer !== null) this.#connect();
  }

  /** Ask for control. The view goes on meanwhile, and stays if control is refused. */
  takeControl() {
    if (this.#live?.role !== "view" || this.#pending) return;
    this.#wantedRole = "control";
    this.#controlFailures = CONTROL_RETRIES;
    this.#connect();
  }

  /** Give control back at once, and go on viewing. */
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

  /** Let go of all keys that are held down over there, e.g. before the focus goes elsewhere. */
  releaseKeys() {
    this.#live?.releaseKeys();
  }

  /** Give the picture the keyboard's focus. */
  focus() {
    this.#live?.focus();
  }

  /**
   * Put text on the task's clipboard and press Ctrl+V there. Needs control.
   *
   * @param {string} text  what is not Latin-1 does not survive RFB's plain clipboard message
   */
  paste(text) {
    this.#live?.paste(text);
  }

  /** An observer does not see into shadow trees, so each tree around the element is observed. */
  #watchRemoval() {
    this.#removal.disconnect();
    if (!this.#element.isConnected) return;
    for (let root = this.#element.getRootNode(); root; root = root.host?.getRootNode()) {
      this.#removal.observe(root, { childList: true, subtree: true });
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

  #onConnected(connection) {
    this.#keepPicture(this.#live);
    this.#live?.abandon();
    this.#live = connection;
    this.#pending = null;
    this.#everConnected = true;
    this.#controlFailures = 0;
    this.#set({ state: "connected", outcome: null, code: null, reason: "" });
  }

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

  #onClosed(connection, { code, reason, livedMs = 0 }) {
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
      // The live one was lost while control was on its way, which goes on as the new connection.
      this.#set({ state: "reconnecting", code, reason });
      return;
    }
    const neverOpened = livedMs === 0;
    if (neverOpened && connection.role === "control" && ++this.#controlFailures > CONTROL_RETRIES) {
      this.#controlRefused();
    }
    const pauseMs = reason === TOO_SLOW ? TOO_SLOW_PAUSE_MS : null;
    this.#retry("reconnecting", { code, reason }, RETRY_MAX_MS, pauseMs);
  }

  #controlRefused() {
    this.#wantedRole = "view";
    this.#set({});
    this.#emit("controlrefused");
  }

  #retry(state, why, maxMs = RETRY_MAX_MS, pauseMs = null) {
    const grownMs = Math.min(maxMs, RETRY_FIRST_MS * 2 ** this.#failures++);
    // Jitter keeps many viewers of one server from coming back all at once.
    const delayMs = pauseMs ?? grownMs * (0.7 + 0.3 * Math.random());
    this.#clearTimer();
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    this.#set({ state, code: null, reason: "", ...why });
  }

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
    this.#timer = null;
  }

  /**
   * The canvas itself is kept, not a copy of it: images of the last update may still be decoding, and
   * noVNC draws them when they are ready, connected or not.
   */
  #keepPicture(connection) {
    const canvas = connection?.canvas;
    if (!canvas) return;
    canvas.style.cssText =
      "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain;";
    canvas.tabIndex = -1;
    this.#still.replaceChildren(canvas);
  }

  #set(change) {
    this.#status = Object.freeze({
      ...this.#status,
      ...change,
      role: this.#live?.role ?? null,
      takingControl: this.#wantedRole === "control" && this.#live?.role !== "control",
    });
    this.#emit("status", this.#status);
  }

  #emit(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** One connection: from asking for its URL to its close. It reports until it closes or is abandoned. */
class Connection {
  #element;
  #options;
  #report;
  #over = new AbortController();
  #layer = layer("pending");
  #socket = null;
  #rfb = null;
  #timeout = null;
  #connectedAt = null;

  constructor(element, role, options, report) {
    this.#element = element;
    this.role = role;
    this.#options = options;
    this.#report = report;
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
      this.#report.unavailable(error);
      return;
    }
    if (signal.aborted) return;
    this.#report.found();
    try {
      this.#dial(url);
    } catch (error) {
      this.#fail(error.message);
    }
  }

  #dial(url) {
    const socket = new WebSocket(url, ["binary"]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    // Before RFB, which sets `onclose`: so this runs while noVNC's canvas is still in the page.
    socket.addEventListener("close", ({ code, reason }) => this.#closed(code, reason), {
      signal: this.#over.signal,
    });
    this.#timeout = setTimeout(() => this.#fail("the server did not answer in time"), CONNECT_TIMEOUT_MS);
    this.#element.append(this.#layer);
    this.#rfb = new this.#options.RFB(this.#layer, socket, {
      wsProtocols: ["binary"],
      credentials: {},
    });
    const viewOnly = this.role === "view";
    Object.assign(this.#rfb, {
      viewOnly,
      scaleViewport: true,
      resizeSession: false,
      qualityLevel: this.#options.qualityLevel,
      // What lies beneath shows until this connection's own first picture is drawn.
      background: "transparent",
    });
    this.#listen("connect", () => this.#awaitPicture(performance.now() + FIRST_PICTURE_TIMEOUT_MS));
    this.#listen("disconnect", () => this.#fail("the picture could not be decoded"));
    this.#listen("credentialsrequired", () => this.#rfb.sendCredentials({}));
    this.#listen("securityfailure", ({ detail }) => this.#refused(detail.reason));
    this.#listen("clipboard", ({ detail }) => viewOnly || this.#report.clipboard(fromUtf8(detail.text)));
  }

  abandon() {
    if (this.#over.signal.aborted) return;
    this.releaseKeys();
    this.#end();
    this.#rfb?.disconnect();
    this.#layer.remove();
  }

  releaseKeys() {
    // noVNC lifts all keys when the window loses the focus, and has no method that does.
    if (this.role === "control" && this.#rfb) window.dispatchEvent(new Event("blur"));
  }

  focus() {
    this.#rfb?.focus();
  }

  paste(text) {
    if (this.role !== "control") return;
    this.#rfb.clipboardPasteFrom(toUtf8(text));
    setTimeout(() => {
      if (this.#over.signal.aborted) return;
      this.#rfb.sendKey(...KEY.controlLeft, true);
      this.#rfb.sendKey(...KEY.v);
      this.#rfb.sendKey(...KEY.controlLeft, false);
    }, PASTE_PAUSE_MS);
  }

  #awaitPicture(deadline) {
    clearTimeout(this.#timeout);
    if (isDrawn(this.canvas) || performance.now() > deadline) this.#connected();
    else this.#timeout = setTimeout(() => this.#awaitPicture(deadline), FIRST_PICTURE_POLL_MS);
  }

  #connected() {
    this.#connectedAt = performance.now();
    this.#layer.dataset.layer = "live";
    this.#layer.style.visibility = "visible";
    // A viewer's pointer stays its own; a controller's canvas can be reached with Tab.
    this.#layer.style.pointerEvents = this.role === "view" ? "none" : "auto";
    this.canvas.tabIndex = this.role === "view" ? -1 : 0;
    this.#report.connected();
  }

  #closed(code, reason) {
    this.#end();
    this.#report.closed({ code, reason, livedMs: this.#livedMs });
    // Not at once: noVNC hears of the close after us, and then looks for its elements.
    setTimeout(() => this.#layer.remove());
  }

  /** Over, though the socket said nothing. */
  #fail(reason) {
    this.#hangUp();
    this.#report.closed({ code: null, reason, livedMs: this.#livedMs });
  }

  #refused(reason = "the server refused this viewer") {
    this.#hangUp();
    this.#report.unavailable(new StreamUnavailable("refused", reason));
  }

  #hangUp() {
    this.#end();
    this.#socket?.close();
    setTimeout(() => this.#layer.remove());
  }

  #end() {
    this.#over.abort();
    clearTimeout(this.#timeout);
  }

  /** noVNC's `addEventListener` knows no `signal`. */
  #listen(type, listener) {
    this.#rfb.addEventListener(type, (event) => {
      if (!this.#over.signal.aborted) listener(event);
    });
  }
}

/**
 * RFB's clipboard holds bytes, which noVNC shows as characters U+0000 to U+00FF. The server passes
 * them as they are, and the task's browser means UTF-8.
 */
function toUtf8(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

function fromUtf8(bytes) {
  const codes = Array.from(bytes, (character) => character.codePointAt(0));
  if (codes.some((code) => code > 0xff)) return bytes;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(codes));
  } catch {
    return bytes;
  }
}

/** A new canvas is transparent; what noVNC draws is opaque, black too. */
function isDrawn(canvas) {
  const sample = new OffscreenCanvas(1, 1).getContext("2d");
  sample.drawImage(canvas, 0, 0, 1, 1);
  return sample.getImageData(0, 0, 1, 1).data[3] > 0;
}

function layer(name) {
  const element = document.createElement("div");
  element.dataset.layer = name;
  const hidden = name === "pending" ? "visibility: hidden; " : "";
  element.style.cssText = `${hidden}position: absolute; inset: 0; overflow: hidden; pointer-events: none;`;
  return element;
}
