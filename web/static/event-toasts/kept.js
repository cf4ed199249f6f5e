/**
 * What outlives a reload: which runs have a row, which were dismissed, and the notices that no
 * snapshot would bring back. Bounded; where storage is forbidden it lasts as long as the page.
 */

const MOST_RUNS = 200; // as many as a snapshot has
const MOST_NOTICES = 20;

export class Kept {
  #key;
  #isShared;
  #runs = new Map();
  #notices = new Map();

  /**
   * @param {string} key
   * @param {boolean} isShared by the user's tabs; else of this tab alone
   */
  constructor(key, isShared) {
    this.#key = key;
    this.#isShared = isShared;
    this.#read();
  }

  /** What became of a run's row: `shown`, `dismissed`, or nothing so far. */
  of(runId) {
    return this.#runs.get(runId);
  }

  /** A run has a row, or had one that was dismissed before its end. */
  set(runId, word) {
    if (this.of(runId) !== word) this.#change(() => this.#runs.set(runId, word));
  }

  /** A run's row was dismissed after its end, or another run has taken its place. */
  forget(runId) {
    if (this.of(runId)) this.#change(() => this.#runs.delete(runId));
  }

  /** The notices' events, oldest first. */
  get notices() {
    return [...this.#notices.values()];
  }

  keepNotice(key, event) {
    this.#change(() => {
      this.#notices.delete(key);
      this.#notices.set(key, event);
    });
  }

  dropNotice(key) {
    if (this.#notices.has(key)) this.#change(() => this.#notices.delete(key));
  }

  // Read again before each change: another tab may have written.
  #change(change) {
    this.#read();
    change();
    trim(this.#runs, MOST_RUNS);
    trim(this.#notices, MOST_NOTICES);
    const record = { runs: [...this.#runs], notices: [...this.#notices] };
    this.#access((storage) => storage.setItem(this.#key, JSON.stringify(record)));
  }

  #read() {
    const text = this.#access((storage) => storage.getItem(this.#key));
    if (!text) return;
    const record = JSON.parse(text);
    this.#runs = new Map(record.runs);
    this.#notices = new Map(record.notices);
  }

  #access(use) {
    try {
      return use(this.#isShared ? localStorage : sessionStorage);
    } catch (error) {
      if (error instanceof DOMException) return null;
      throw error;
    }
  }
}

function trim(map, most) {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}
