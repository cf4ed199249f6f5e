/**
 * The card and the order of its rows: questions first, the oldest on top, then what is under way,
 * the newest on top. What is over stays to be read, but not without bound.
 */

import { element, icon, setText } from "../elements.js";
import { count } from "./words.js";

const LEAVE_MS = 180;
const STILL_MS = 500; // time to see what is under the pointer by now
const MOST_OVER = 100;
const STILL = "(prefers-reduced-motion: reduce)";

export class Card {
  #rows = new Set();
  #isStyled = false;
  #stillTimer = 0;
  #dismiss;
  #goHome;
  #title = element("h2");
  #clear = element("button", { class: "text-button", type: "button" }, "Clear finished");
  #fold = element("button", { class: "icon-button", type: "button" }, icon("chevron"));
  #asking = element("ul", { class: "toast-list" });
  #list = element("ul", { class: "toast-list", id: "list" });
  #scroll = element("div", { class: "toasts-scroll" }, this.#asking, this.#list);
  #head = element("header", { class: "toasts-head" }, this.#title, this.#clear, this.#fold);
  node = element(
    "section",
    { class: "toasts", part: "card", hidden: true },
    this.#head,
    this.#scroll,
  );

  /**
   * @param {object} handlers
   * @param {(row: object) => void} handlers.dismiss what else is to be done about a dismissed row
   * @param {() => void} handlers.goHome where the keyboard's focus goes when no row is left
   */
  constructor({ dismiss, goHome }) {
    this.#dismiss = dismiss;
    this.#goHome = goHome;
    this.node.setAttribute("aria-label", "Notifications");
    this.#fold.setAttribute("aria-controls", "list");
    this.#fold.addEventListener("click", () => this.#setFolded(this.#fold.ariaExpanded === "true"));
    this.#clear.addEventListener("click", () => this.#clearFinished());
    this.#setFolded(false);
  }

  /** The stylesheets are there: from now on it may be seen. */
  styled() {
    this.#isStyled = true;
    this.#moved();
    this.retitle();
  }

  add(row) {
    this.#rows.add(row);
    if (row.kind === "question") this.#asking.append(row.node);
    else this.#list.prepend(row.node);
    if (!this.node.matches(":hover, :focus-within")) this.#scroll.scrollTop = 0;
    this.#moved();
  }

  /** Takes a row away that somebody may be looking at; the focus goes to the one after it. */
  async remove(row) {
    const next = this.#after(row);
    const { hasFocus: hadFocus } = row;
    this.#rows.delete(row);
    this.retitle();
    if (hadFocus) this.#focus(next);
    row.node.inert = true;
    if (!this.node.hidden && !document.hidden && !matchMedia(STILL).matches) {
      await row.node.animate({ opacity: 0 }, { duration: LEAVE_MS, fill: "forwards" }).finished;
    }
    row.remove();
    this.#moved();
    this.node.hidden = !this.#isStyled || this.#rows.size === 0;
  }

  /** Takes a row away that another one stands for. */
  discard(row, other) {
    if (row.hasFocus) this.#focus(other);
    this.#rows.delete(row);
    row.remove();
    this.#moved();
    this.retitle();
  }

  tick() {
    for (const row of this.#rows) row.tick();
    this.retitle();
  }

  /** Says anew what its rows come to. */
  retitle() {
    const rows = [...this.#rows];
    if (rows.length === 0) return;
    this.node.hidden = !this.#isStyled;
    const over = rows.filter((row) => row.over);
    setText(this.#title, summary(rows));
    this.#clear.hidden = over.length === 0;
    for (const row of over.slice(0, -MOST_OVER)) this.#dismiss(row);
  }

  // Rows move under a pointer that is about to answer another question: no answer in that moment.
  #moved() {
    clearTimeout(this.#stillTimer);
    this.node.toggleAttribute("data-moving", true);
    this.#stillTimer = setTimeout(() => this.node.removeAttribute("data-moving"), STILL_MS);
  }

  #after(row) {
    const inOrder = [...this.#scroll.querySelectorAll(".toast:not([inert])")];
    const at = inOrder.indexOf(row.node);
    const next = inOrder[at + 1] ?? inOrder[at - 1];
    return [...this.#rows].find(({ node }) => node === next);
  }

  #focus(row) {
    if (row && row.node.checkVisibility()) row.focus();
    else if (this.#rows.size > 0) this.#fold.focus();
    else this.#goHome();
  }

  #clearFinished() {
    for (const row of [...this.#rows].filter(({ over }) => over)) this.#dismiss(row);
    this.#focus([...this.#rows].at(-1));
  }

  #setFolded(folded) {
    this.node.toggleAttribute("data-folded", folded);
    this.#fold.ariaExpanded = String(!folded);
    this.#fold.ariaLabel = folded ? "Unfold the list" : "Fold the list";
  }
}

function summary(rows) {
  const asking = rows.filter(({ kind, over }) => kind === "question" && !over).length;
  const runs = rows.filter(({ kind }) => kind === "run");
  const busy = runs.filter((row) => !row.over).length;
  const failed = runs.filter(hasFailed).length;
  if (asking > 0 && busy + failed === 0) return `${count(asking, "approval")} needed`;
  if (busy > 0 && asking + failed === 0) return `Ingesting ${count(busy, "source")}`;
  if (asking + busy > 0) {
    return [
      asking > 0 && count(asking, "approval"),
      busy > 0 && `${busy} ingesting`,
      failed > 0 && `${failed} failed`,
    ]
      .filter(Boolean)
      .join(", ");
  }
  return runs.length > 0 ? ending(runs) : count(rows.length, "notification");
}

const hasFailed = (row) => row.node.dataset.status === "failed";

/** How it went: `3 sources finished`, `1 source failed`, `2 of 3 sources failed`. */
function ending(rows) {
  const failed = rows.filter(hasFailed).length;
  const all = count(rows.length, "source");
  if (failed === 0) return `${all} finished`;
  return failed === rows.length ? `${all} failed` : `${failed} of ${all} failed`;
}
