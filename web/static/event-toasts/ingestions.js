/**
 * The rows of uploads and runs. A row that is over stays until it is dismissed, also over a reload;
 * a dismissed one that still runs comes back to say how it ended.
 */

import { RunRow } from "./run-row.js";
import { hasEnded } from "./runs.js";
import { Sources } from "./sources.js";

const SETTLED = new Set(["accepted", "failed", "aborted"]);

export class Ingestions {
  #sources = new Sources();
  #rows = new Set();
  #isFirstPaint = true;
  #held = new Map(); // by source id: runs that an upload may turn out to be
  #card;
  #kept;
  #announcer;
  #emit;

  /**
   * @param {object} parts
   * @param {import("./card.js").Card} parts.card
   * @param {import("./kept.js").Kept} parts.kept
   * @param {import("./announcer.js").Announcer} parts.announcer
   * @param {(name: string, detail: object) => void} parts.emit tells the page
   */
  constructor({ card, kept, announcer, emit }) {
    this.#card = card;
    this.#kept = kept;
    this.#announcer = announcer;
    this.#emit = emit;
    this.#sources.watch(({ runs, run, known }) => {
      if (runs) this.#paint(runs);
      else this.#showRun(run, known);
    });
  }

  /** Takes the state of all runs: shows those under way, and the end of those that were. */
  paint(runs) {
    this.#sources.paint(runs);
  }

  take(event) {
    this.#sources.apply(event);
  }

  /** Follows an upload; once accepted, its row belongs to the run. */
  showUpload(upload) {
    const row = this.#rowOf((r) => r.upload === upload);
    if (upload.phase === "aborted") {
      if (row) this.#remove(row);
    } else if (upload.phase !== "accepted") {
      (row ?? this.#add(upload.name)).showUpload(upload);
      if (upload.phase === "failed") this.#announcer.tellFailed(upload);
    } else if (row) {
      this.#accept(row, upload);
    }
    if (SETTLED.has(upload.phase)) this.#releaseHeld();
    this.#card.retitle();
  }

  /** Dismisses a row; says whether it is one of these. */
  dismiss(row) {
    if (!this.#rows.has(row)) return false;
    const { runId, over } = row;
    if (runId && !over) this.#kept.set(runId, "dismissed");
    else if (runId) this.#kept.forget(runId);
    if (over || runId) this.#remove(row);
    else this.#emit("upload-cancel", row.upload); // the page aborts it, which takes its row along
    return true;
  }

  /**
   * Takes away the rows of runs that were dismissed in another tab.
   * @param {Set<string>} gone runs that are not kept any more: with their row, where they are over
   */
  dropDismissed(gone) {
    for (const row of [...this.#rows]) {
      const isDropped = row.over ? gone.has(row.runId) : this.#kept.of(row.runId) === "dismissed";
      if (isDropped) this.#remove(row);
    }
  }

  #paint(runs) {
    for (const run of runs.toReversed()) {
      const wasTold = this.#isFirstPaint && this.#kept.of(run.run_id) === run.status;
      if (wasTold) this.#announcer.know(run);
      const known = this.#rowOf((r) => r.sourceId === run.source_id);
      if (known || !hasEnded(run) || this.#kept.of(run.run_id)) this.#showRun(run, false);
    }
    this.#isFirstPaint = false;
  }

  // `known`: it is only said once more; an end that was seen gets no row again.
  #showRun(run, known) {
    const row = this.#rowOf((r) => r.sourceId === run.source_id);
    const dismissed = this.#kept.of(run.run_id) === "dismissed";
    if (!row && !dismissed && this.#rowOf((r) => r.mayBe(run))) {
      this.#held.set(run.source_id, { run, known });
      return;
    }
    if (!row && known && hasEnded(run)) return;
    if (dismissed && !hasEnded(run)) {
      if (row) this.#remove(row);
      return;
    }
    if (row?.run && row.run.run_id !== run.run_id) this.#kept.forget(row.run.run_id);
    this.#kept.set(run.run_id, run.status);
    this.#announcer.tell(run);
    (row ?? this.#add(run.name)).showRun(run);
    this.#card.retitle();
  }

  // The run's first event may have come before the answer that says whose it is.
  #accept(row, { sourceId }) {
    const other = this.#rowOf((r) => r !== row && r.sourceId === sourceId);
    if (!other) row.accepted();
    else {
      this.#rows.delete(row);
      this.#card.discard(row, other);
    }
  }

  #releaseHeld() {
    const held = [...this.#held.values()];
    this.#held.clear();
    held.forEach(({ run, known }) => this.#showRun(run, known));
  }

  #rowOf(matches) {
    return [...this.#rows].find(matches);
  }

  #add(name) {
    const row = new RunRow(name, {
      onClose: (closed) => this.dismiss(closed),
      onRetry: ({ upload }) => this.#emit("upload-retry", upload),
    });
    this.#rows.add(row);
    this.#card.add(row);
    return row;
  }

  #remove(row) {
    this.#rows.delete(row);
    this.#card.remove(row);
  }
}
