/** A map of which only so much is written down; what there is no room for lasts as long as the page. */

export class Ledger {
  #most;
  #rank;
  #written = new Map();
  #beyond = new Map();

  /**
   * @param {number} most entries that are written
   * @param {(value: any) => number} rank of two that are as old, the lower one goes first
   */
  constructor(most, rank) {
    this.#most = most;
    this.#rank = rank;
  }

  get(key) {
    return this.#written.get(key) ?? this.#beyond.get(key);
  }

  set(key, value) {
    this.delete(key);
    this.#written.set(key, value);
  }

  delete(key) {
    this.#written.delete(key);
    this.#beyond.delete(key);
  }

  /** All, the oldest first. */
  get entries() {
    return [...this.#beyond, ...this.#written];
  }

  /**
   * Takes what is written by now, in place of what was.
   * @returns {string[]} what was deleted since; of a full one nobody can tell, it may be for want of room
   */
  load(entries) {
    const before = [...this.#written.keys()];
    this.#written = new Map(entries);
    for (const key of this.#written.keys()) this.#beyond.delete(key);
    return this.#written.size < this.#most ? before.filter((key) => !this.#written.has(key)) : [];
  }

  clear() {
    this.#written.clear();
    this.#beyond.clear();
  }

  /** What is to be written. */
  dump() {
    const excess = Math.max(0, this.#written.size - this.#most);
    const last = [...this.#written].sort(([, a], [, b]) => this.#rank(a) - this.#rank(b));
    for (const [key, value] of last.slice(0, excess)) {
      this.#written.delete(key);
      this.#beyond.set(key, value);
    }
    return [...this.#written];
  }
}
