/** What every row of the card has: an icon, a name, a line under it, and a way to dismiss it. */

import { element, icon, setIcon, setText, setTitle } from "../elements.js";

export class Row {
  kind = "note"; // or "run", or "question"
  #icon = icon("note");
  #name = element("span", { class: "toast-name" });
  #line = element("p", { class: "toast-line" });
  #close = element("button", { class: "icon-button", type: "button" }, icon("close"));
  head = element("div", { class: "toast-head" }, this.#name);
  body = element("div", { class: "toast-body" }, this.head, this.#line);
  node = element("li", { class: "toast" }, this.#icon, this.body, this.#close);

  /** @param {(row: Row) => void} onClose somebody wants it gone */
  constructor(onClose) {
    this.#close.addEventListener("click", () => onClose(this));
  }

  /** Whether what it says is over. */
  get over() {
    return true;
  }

  /** Whether the keyboard's focus is in it. */
  get hasFocus() {
    return this.node.contains(this.node.getRootNode().activeElement);
  }

  /** What it is about. */
  get name() {
    return this.#name.textContent;
  }

  setName(name) {
    setText(this.#name, name);
    setTitle(this.#name, name);
  }

  /** Takes a status's icon and colours, and says where it stands. */
  look(status, line) {
    this.node.dataset.status = status;
    setIcon(this.#icon, status);
    this.say(line);
  }

  /** Says where it stands. */
  say(line) {
    setText(this.#line, line);
    this.#line.hidden = !line;
  }

  /** What the button does: a verb that goes before the name. */
  closeSays(verb) {
    this.#close.setAttribute("aria-label", `${verb} ${this.name}`);
  }

  /** A second has passed. */
  tick() {}

  /** Moves the keyboard's focus to this row. */
  focus() {
    this.#close.focus({ preventScroll: true });
    this.node.scrollIntoView({ block: "nearest" });
  }

  /** Takes it out of the document. */
  remove() {
    this.node.remove();
  }
}
