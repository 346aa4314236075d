/** The debug page's clipboard panel: text in both directions while the viewer has control. */

import { byId } from "./dom.js";
import { showNotice } from "./view-panel.js";

export class ClipboardPanel {
  #toggle = byId("clipboard-toggle");
  #panel = byId("clipboard");
  #pasteText = byId("paste-text", HTMLTextAreaElement);
  #copiedText = byId("copied-text", HTMLTextAreaElement);
  #copy = byId("copy", HTMLButtonElement);

  /** @param {(text: string) => void} paste  paste into the task's browser */
  constructor(paste) {
    this.#toggle.addEventListener("click", () => {
      this.#open(Boolean(this.#panel.hidden));
      if (!this.#panel.hidden) this.#pasteText.focus();
    });
    this.#panel.addEventListener("keydown", (event) => this.#onKey(event));
    byId("paste-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#pasteText.value !== "") paste(this.#pasteText.value);
    });
    this.#copy.addEventListener("click", () => copyText(this.#copiedText.value, "Text"));
  }

  /** @param {boolean} available */
  setAvailable(available) {
    this.#toggle.hidden = !available;
  }

  /**
   * Show text that was copied in the task's browser.
   *
   * @param {string} text
   */
  showCopied(text) {
    this.#copiedText.value = text;
    this.#copy.disabled = text === "";
    if (this.#panel.hidden) showNotice("Text was copied in the task's browser: see Clipboard.");
  }

  /** Close the panel and discard the copied text. */
  reset() {
    this.#open(false);
    this.#copiedText.value = "";
    this.#copy.disabled = true;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.key === "Escape") {
      this.#open(false);
      this.#toggle.focus();
    } else if (event.key === "Enter" && event.ctrlKey && event.target === this.#pasteText) {
      byId("paste-form", HTMLFormElement).requestSubmit();
    }
  }

  /** @param {boolean} open */
  #open(open) {
    this.#panel.hidden = !open;
    this.#toggle.setAttribute("aria-expanded", String(open));
  }
}

/**
 * @param {string} text
 * @param {string} name  of what is copied, for the notice
 */
export async function copyText(text, name) {
  try {
    await navigator.clipboard.writeText(text);
    showNotice(`${name} copied.`);
  } catch {
    showNotice("The browser did not allow copying.");
  }
}
