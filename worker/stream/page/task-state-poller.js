/** Polls `debug/state`: what the worker reports about the task that runs on this address. */

const RUNNING_POLL_MS = 2000;
const ENDED_POLL_MS = 3000;

/**
 * @typedef {object} TaskState
 * @property {string} task_id
 * @property {string} target
 * @property {"starting"|"running"|"ending"} state
 * @property {string} [started_at]  ISO 8601
 * @property {number} [viewers]
 * @property {boolean} [controller]  whether any viewer has control
 */

export class TaskStatePoller {
  #isOver;
  #onAnswer;
  /** @type {number|undefined} */
  #timer;
  #request = new AbortController();

  /**
   * @param {object} calls
   * @param {() => boolean} calls.isOver  whether the watched stream has ended
   * @param {(answer: TaskState|null) => void} calls.onAnswer  null: the worker does not answer
   */
  constructor({ isOver, onAnswer }) {
    this.#isOver = isOver;
    this.#onAnswer = onAnswer;
  }

  /** @param {number} delayMs */
  pollIn(delayMs) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.poll(), delayMs);
  }

  /** Ask now, and then periodically while the page is visible. A pending request is aborted. */
  async poll() {
    this.#request.abort();
    this.#request = new AbortController();
    const { signal } = this.#request;
    if (document.visibilityState === "hidden") return;
    this.pollIn(this.#isOver() ? ENDED_POLL_MS : RUNNING_POLL_MS);
    let answer = null;
    try {
      const response = await fetch("debug/state", { signal, cache: "no-store" });
      if (response.ok) answer = await response.json();
    } catch {
      // No server answers between two runs.
    }
    if (!signal.aborted) this.#onAnswer(answer);
  }
}
