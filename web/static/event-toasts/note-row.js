/** Rows of the card that only tell: how a sign-in went, and what a template of the page's shows. */

import { element, setText } from "../elements.js";
import { Row } from "./row.js";
import { signInLine } from "./words.js";

export class SignInRow extends Row {
  show({ type, payload }) {
    this.setName(payload.server);
    const failed = type === "mcp.oauth.failed";
    this.look(failed ? "failed" : "completed", signInLine(payload));
    this.closeSays("Dismiss");
  }

  /** What to say of it aloud. */
  get told() {
    return `${this.name}: ${this.node.querySelector(".toast-line").textContent}`;
  }
}

let rows = 0;

/** The content is a child of the element, shown in a slot: the page's own styles hold for it. */
export class TemplateRow extends Row {
  #content;

  /**
   * @param {(row: TemplateRow) => void} onClose
   * @param {HTMLElement} host
   */
  constructor(onClose, host) {
    super(onClose);
    const slot = `toast-${++rows}`;
    this.#content = element("div", { slot });
    this.body.replaceChildren(element("slot", { name: slot }));
    host.append(this.#content);
  }

  /** Shows an event by its type's template. */
  show(event, template) {
    const hadFocus = this.#contentHasFocus;
    this.#content.replaceChildren(filled(template, event));
    if (hadFocus) this.focus();
    this.look(template.dataset.status ?? "note", "");
    this.setName(this.told);
    this.closeSays("Dismiss");
  }

  get hasFocus() {
    return super.hasFocus || this.#contentHasFocus;
  }

  // It is not in the shadow, which has the host as its active element then, or none.
  get #contentHasFocus() {
    return this.#content.contains(this.#content.getRootNode().activeElement);
  }

  get told() {
    return this.#content.textContent.replace(/\s+/g, " ").trim();
  }

  remove() {
    super.remove();
    this.#content.remove();
  }
}

function filled(template, event) {
  const content = document.importNode(template.content, true);
  for (const node of content.querySelectorAll("[data-field]")) {
    setText(node, asText(valueAt(event, node.dataset.field)));
  }
  return content;
}

function valueAt(event, path) {
  return path
    .split(".")
    .reduce((value, name) => (Object.hasOwn(Object(value), name) ? value[name] : null), event);
}

function asText(value) {
  return typeof value === "object" && value ? JSON.stringify(value) : String(value ?? "");
}
