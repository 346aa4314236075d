/** Repeats requests at intervals: not while the page is hidden, and less often after errors. */

import { ApiError } from "./api-client.js";

const RETRY_FIRST_MS = 1000;
const RETRY_MAX_MS = 15_000;

export class Poller {
  #request;
  #onResult;
  /** @type {number|undefined} */
  #timer;
  /** @type {AbortController|null} */
  #round = null;
  #failures = 0;

  /**
   * @param {(signal: AbortSignal) => Promise<number|null>} request
   *   does one round; resolves with the delay until the next one in ms, or null to stop
   * @param {(error: ApiError|null) => boolean} onResult  called after each round; true stops the polling
   */
  constructor(request, onResult) {
    this.#request = request;
    this.#onResult = onResult;
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible" && this.#round) this.now();
    });
    window.addEventListener("online", () => this.#round && this.now());
  }

  /** Start a round now; a pending one is aborted. */
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

  /** @param {AbortController} round */
  async #run(round) {
    let delayMs;
    try {
      delayMs = await this.#request(round.signal);
      if (round.signal.aborted) return;
      this.#failures = 0;
      this.#onResult(null);
    } catch (error) {
      if (round.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      const backoffMs = Math.min(RETRY_FIRST_MS * 2 ** this.#failures++, RETRY_MAX_MS);
      delayMs = Math.max(backoffMs, (error.retryAfterS ?? 0) * 1000);
      if (this.#onResult(error)) return;
    }
    // A hidden page starts a round when it becomes visible.
    if (delayMs === null || document.visibilityState === "hidden") return;
    this.#timer = setTimeout(() => this.#run(round), delayMs);
  }
}
