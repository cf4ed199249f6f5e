/**
 * What outlives a reload: which runs have a row and what was said of them, which were dismissed, and
 * the notices that no snapshot would bring back. It is of one user, and nothing is read or written
 * before it is known of which. Where storage is forbidden or full it lasts as long as the page.
 */

import { Ledger } from "./ledger.js";
import { hasEnded } from "./runs.js";

const MOST_RUNS = 200; // as many as a snapshot has
const MOST_NOTICES = 20;
const QUESTION = "tool.approval.required";

const isDismissed = (word) => word === "dismissed";
const runRank = (word) => (isDismissed(word) ? 2 : hasEnded({ status: word }) ? 0 : 1);
const noticeRank = ({ event }) => (event.type === QUESTION ? 1 : 0);

export class Kept {
  #key;
  #user;
  #owner = null;
  #isOpen = false;
  #hasStorage = true;
  #runs = new Ledger(MOST_RUNS, runRank);
  #notices = new Ledger(MOST_NOTICES, noticeRank);
  #gone = new Set(); // keys that another tab has deleted

  /**
   * @param {string} key
   * @param {string|null} user whose tabs share it; without one it is of this tab alone
   */
  constructor(key, user) {
    this.#key = key;
    this.#user = user;
  }

  /** Whether it is of this user, or may still become so. */
  isFor(userId) {
    return !this.#isOpen || this.#owner === this.#ownerFor(userId);
  }

  /**
   * Says whose it is: what was kept for somebody else is gone. Where nobody says, nothing is kept.
   * @param {string|null|undefined} userId what the server says
   * @returns {boolean} whether it was said for the first time
   */
  open(userId) {
    if (this.#isOpen) return false;
    const early = [this.#runs.entries, this.#notices.entries];
    this.#isOpen = true;
    this.#owner = this.#ownerFor(userId);
    this.#read();
    early[0].forEach(([key, word]) => this.#runs.set(key, word));
    early[1].forEach(([key, notice]) => this.#notices.set(key, notice));
    this.#write();
    return true;
  }

  /** What became of a run's row: the status it showed last, `dismissed`, or nothing so far. */
  of(runId) {
    return this.#runs.get(runId);
  }

  /** A run's row shows a status, or was `dismissed` before the end. */
  set(runId, word) {
    if (this.of(runId) !== word) this.#change(() => this.#runs.set(runId, word));
  }

  /** A run's row was dismissed after its end, or another run has taken its place. */
  forget(runId) {
    if (this.of(runId)) this.#change(() => this.#runs.delete(runId));
  }

  /** The notices by their keys, oldest first: `{event, isDoubtful}` each. */
  get notices() {
    return this.#notices.entries;
  }

  keepNotice(key, event, isDoubtful = false) {
    this.#change(() => this.#notices.set(key, { event, isDoubtful }));
  }

  dropNotice(key) {
    if (this.#notices.get(key)) this.#change(() => this.#notices.delete(key));
  }

  /**
   * Takes what another tab has done to the storage.
   * @param {StorageEvent} event
   * @returns {{isEmptied: boolean, gone: Set<string>}|null} what that is here; `gone`: what it no
   *   longer keeps, by run ids and the notices' keys
   */
  follow({ key }) {
    if (this.#user === null || !this.#isOpen || (key !== null && key !== this.#key)) return null;
    const isEmptied = !this.#read();
    const gone = this.#gone;
    this.#gone = new Set();
    return { isEmptied, gone };
  }

  #ownerFor(userId) {
    return userId ?? this.#user;
  }

  // Read again before each change: another tab may have written, or somebody has signed out.
  #change(change) {
    this.#read();
    change();
    this.#write();
  }

  // Says whether there is anything. What is in memory alone is not to outlive a clearing.
  #read() {
    const text = this.#access((storage) => storage.getItem(this.#key));
    if (text === undefined) return true;
    const record = JSON.parse(text);
    if (record?.owner !== this.#owner) {
      this.#runs.clear();
      this.#notices.clear();
      return false;
    }
    const gone = [...this.#runs.load(record.runs), ...this.#notices.load(record.notices)];
    for (const each of gone) this.#gone.add(each);
    return true;
  }

  #write() {
    const [runs, notices] = [this.#runs.dump(), this.#notices.dump()];
    const text = JSON.stringify({ owner: this.#owner, runs, notices });
    this.#access((storage) => storage.setItem(this.#key, text));
  }

  #access(use) {
    if (!this.#hasStorage || this.#owner === null) return undefined;
    try {
      return use(this.#user === null ? sessionStorage : localStorage);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.#hasStorage = false;
      return undefined;
    }
  }
}
