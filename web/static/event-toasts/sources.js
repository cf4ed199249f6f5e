/** The user's sources, newest first: painted whole from the server's state, changed by events. */

import { applyEvent, hasEnded } from "./runs.js";

const MOST_ENDED = 500; // more than a state has

export class Sources {
  #runs = new Map();
  #watchers = [];

  /**
   * Tells of every change from here on.
   * @param {(change: {runs: object[]|null, run: object|null, known: boolean}) => void} watcher
   *   gets the changed run, or all of them after a painting; `known` where the event said no more
   *   than what was known, since a request was repeated and somebody waits for a word
   */
  watch(watcher) {
    this.#watchers.push(watcher);
  }

  /** All runs, newest first. */
  list() {
    return [...this.#runs.values()].sort((a, b) => b.accepted_at.localeCompare(a.accepted_at));
  }

  /** Takes the server's state in place of what was here. */
  paint(runs) {
    this.#runs = new Map(runs.map((run) => [run.source_id, withMemory(run, this.#runs)]));
    this.#tell({ runs: this.list(), run: null, known: false });
  }

  /** Takes one event. */
  apply(event) {
    const before = this.#runs.get(event.scope?.id);
    const run = applyEvent(before, event);
    const known = run === before;
    if (known && !(run?.run_id === event.payload?.run_id && event.payload?.repeated)) return;
    this.#runs.set(run.source_id, run);
    this.#trim();
    this.#tell({ runs: null, run, known });
  }

  #trim() {
    if (this.#runs.size <= MOST_ENDED) return;
    const ended = [...this.#runs.values()].filter(hasEnded);
    for (const { source_id: id } of ended.slice(0, -MOST_ENDED)) this.#runs.delete(id);
  }

  #tell(change) {
    for (const watcher of this.#watchers) watcher(change);
  }
}

/** Keeps what only an event told of the same run, and the percent of the same attempt. */
function withMemory(run, known) {
  const before = known.get(run.source_id);
  if (before?.run_id !== run.run_id) return run;
  const floor = before.attempt === run.attempt ? before.percent : 0;
  const told = before.status === run.status ? { ...before, ...run } : run;
  return { ...told, percent: Math.max(run.percent, floor) };
}
