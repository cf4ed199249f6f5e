/**
 * The rows of a table, painted from what the server says. A row that stays keeps its elements, and
 * with them the keyboard's focus and what is selected.
 */

import { element } from "/static/elements.js";

/**
 * A row of these cells.
 * @param {string} kind a class
 * @param {[string, HTMLTableCellElement][]} cells each with its column's name, which a narrow
 *   screen shows beside it; the first one names the row
 */
export function tableRow(kind, cells) {
  const row = element("tr", { class: kind, role: "row" });
  for (const [column, cell] of cells) {
    cell.dataset.column = column;
    row.append(cell);
  }
  return row;
}

/** A cell. Its role is said, since a narrow screen lays the table out as cards. */
export const cell = (kind, ...children) =>
  element("td", { class: kind, role: "cell" }, ...children);

/** The cell that names its row. */
export const headCell = (...children) =>
  element("th", { class: "name", role: "rowheader", scope: "row" }, ...children);

export class Rows {
  #body;
  #make;
  #rows = new Map();

  /**
   * @param {HTMLTableElement} table
   * @param {(item: object) => {node: HTMLElement, show: (item: object) => void}} make a new row
   */
  constructor(table, make) {
    this.#body = table.tBodies[0];
    this.#make = make;
  }

  /** Shows these items, in this order; `keyOf` says which of them is which row's. */
  paint(items, keyOf) {
    const before = this.#rows;
    this.#rows = new Map();
    for (const item of items) {
      const key = keyOf(item);
      const row = before.get(key) ?? this.#make(item);
      row.show(item);
      this.#rows.set(key, row);
    }
    const nodes = [...this.#rows.values()].map(({ node }) => node);
    const shown = [...this.#body.rows];
    if (nodes.length === shown.length && nodes.every((node, i) => node === shown[i])) return;
    const focused = document.activeElement;
    const place = shown.findIndex((node) => node.contains(focused));
    this.#body.replaceChildren(...nodes);
    if (this.#body.contains(focused)) focused.focus({ preventScroll: true });
    else if (place >= 0) focusNear(this.#body, place);
  }
}

/**
 * Focuses what has taken the place of a row that went: its button, or its room's heading.
 * @param {HTMLTableSectionElement} body
 * @param {number} place the row's
 */
export function focusNear(body, place) {
  const row = body.rows[Math.min(place, body.rows.length - 1)];
  const near = row?.querySelector("button") ?? body.closest("section").querySelector("h2");
  near.focus({ preventScroll: true });
}
