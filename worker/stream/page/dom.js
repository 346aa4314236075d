/** Reading and writing the elements of a page; every value is written as text, never as markup. */

/**
 * The element with an id.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type]  such as HTMLInputElement
 * @returns {T}
 * @throws {TypeError} if the page has no such element of this type
 */
export function byId(id, type) {
  return checked(document.getElementById(id), `#${id}`, type);
}

/**
 * The first element below `parent` that matches a selector.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => T} [type]
 * @returns {T}
 * @throws {TypeError} if there is no such element of this type
 */
export function query(parent, selector, type) {
  return checked(parent.querySelector(selector), selector, type);
}

/**
 * @template {HTMLElement} T
 * @param {Element|null} element
 * @param {string} name
 * @param {(new () => T)|undefined} type
 */
function checked(element, name, type) {
  if (element instanceof (type ?? HTMLElement)) return /** @type {T} */ (element);
  throw new TypeError(`the page has no ${type?.name ?? "element"} ${name}`);
}

/**
 * Sets a text only if it differs: a selection in it is kept, and a live region is not read out again.
 *
 * @param {string|Element} target  an element, or its id
 * @param {string|null|undefined} text
 */
export function setText(target, text) {
  const element = typeof target === "string" ? byId(target) : target;
  if (element.textContent !== (text ?? "")) element.textContent = text ?? "";
}

/**
 * Like {@link setText}; hides the element if the text is empty.
 *
 * @param {string} id
 * @param {string|null|undefined} text
 */
export function setTextOrHide(id, text) {
  setText(id, text);
  byId(id).hidden = !text;
}

/**
 * Create an element. Strings become text nodes.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string|null>} [attributes]  `class`, `href`, `aria-…`, `data-…`; null omits one
 * @param {...(Node|string)} children
 */
export function create(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * Make the children of `parent` match `items` in this order. An element is reused by its key, so that it
 * keeps the focus.
 *
 * @template Item
 * @param {HTMLElement} parent
 * @param {Item[]} items
 * @param {(item: Item) => string} key
 * @param {(item: Item) => HTMLElement} createElement
 * @param {(element: HTMLElement, item: Item) => void} update
 */
export function syncChildren(parent, items, key, createElement, update) {
  const old = new Map(childElements(parent).map((element) => [element.dataset.key, element]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const element = old.get(name) ?? createElement(item);
    old.delete(name);
    element.dataset.key = name;
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of old.values()) element.remove();
}

/**
 * @param {Element} parent
 * @returns {HTMLElement[]}
 */
export function childElements(parent) {
  return [...parent.children].filter((child) => child instanceof HTMLElement);
}
