/**
 * The toast card: a row for every ingestion under way, newest first. A row that is over stays
 * until it is dismissed; a dismissed one that still runs comes back to say how it ended.
 */

import { Announcer } from "/static/announcer.js";
import { byId, setText } from "/static/elements.js";
import { hasEnded } from "/static/runs.js";
import { ToastRow } from "/static/toast-row.js";
import { count } from "/static/words.js";

const LEAVE_MS = 180;
const SETTLED = new Set(["accepted", "failed", "aborted"]);

export class Toasts {
  #card = byId("toasts");
  #title = byId("toasts-title");
  #list = byId("toast-list");
  #clear = byId("toasts-clear");
  #fold = byId("toasts-fold");
  #announcer = new Announcer();
  #rows = new Set();
  #held = new Map(); // by source id: runs that an upload may turn out to be
  #dismissed = new Set(); // ids of runs under way
  #uploads;

  /** @param {import("/static/uploads.js").Uploads} uploads */
  constructor(uploads) {
    this.#uploads = uploads;
    this.#fold.addEventListener("click", () => this.#toggle());
    this.#clear.addEventListener("click", () => this.#clearFinished());
    setInterval(() => this.#rows.forEach((row) => row.tick()), 1000);
    new ResizeObserver(() => this.#makeRoom()).observe(this.#card);
  }

  /** Follows an upload; once accepted, its row belongs to the run. */
  showUpload(upload) {
    const row = this.#rowOf((r) => r.upload === upload);
    if (upload.phase === "aborted") {
      if (row) this.#remove(row);
    } else if (upload.phase !== "accepted") {
      (row ?? this.#add(upload.name)).showUpload(upload);
      if (upload.phase === "failed") this.#announcer.tellFailed(upload);
    } else {
      this.#accept(row, upload);
    }
    if (SETTLED.has(upload.phase)) this.#releaseHeld();
    this.#retitle();
  }

  /**
   * Follows a run.
   * @param {boolean} known it is only said once more: an end that was seen gets no toast again
   */
  showRun(run, known = false) {
    const row = this.#rowOf((r) => sourceOf(r) === run.source_id);
    if (!row && this.#uploads.mayHaveBecome(run) && !this.#dismissed.has(run.run_id)) {
      this.#held.set(run.source_id, { run, known });
      return;
    }
    if (!row && known && hasEnded(run)) return;
    if (this.#dismissed.has(run.run_id) && !hasEnded(run)) return;
    this.#dismissed.delete(run.run_id);
    this.#announcer.tell(run);
    (row ?? this.#add(run.name)).showRun(run);
    this.#retitle();
  }

  /** Takes the state of all runs: shows those under way, and the end of those that were. */
  paint(runs) {
    for (const run of runs.toReversed()) {
      const known = this.#rowOf((r) => sourceOf(r) === run.source_id);
      if (known || !hasEnded(run) || this.#dismissed.has(run.run_id)) this.showRun(run);
    }
  }

  // The run's first event may have come before the answer that says whose it is.
  #accept(row, { sourceId }) {
    const other = this.#rowOf((r) => r !== row && sourceOf(r) === sourceId);
    if (other) this.#discard(row);
    else row.node.dataset.source = sourceId;
  }

  #releaseHeld() {
    const held = [...this.#held.values()];
    this.#held.clear();
    held.forEach(({ run, known }) => this.showRun(run, known));
  }

  #rowOf(matches) {
    return [...this.#rows].find(matches);
  }

  #add(name) {
    const row = new ToastRow(name, {
      onClose: (closed) => this.#close(closed),
      onRetry: ({ upload }) => this.#uploads.retry(upload),
    });
    this.#rows.add(row);
    this.#list.prepend(row.node);
    this.#list.scrollTop = 0;
    return row;
  }

  #close(row) {
    const next = row.node.nextElementSibling ?? row.node.previousElementSibling;
    const runId = row.run?.run_id ?? row.upload.runId;
    if (!row.over && runId) this.#dismissed.add(runId);
    if (row.over || runId) this.#remove(row);
    else this.#uploads.abort(row.upload); // takes its row along
    (this.#rowOf((r) => r.node === next) ?? byId("main")).focus({ preventScroll: true });
  }

  #clearFinished() {
    for (const row of this.#rows) if (row.over) this.#remove(row);
    byId("main").focus({ preventScroll: true });
  }

  #discard(row) {
    this.#rows.delete(row);
    row.node.remove();
    this.#retitle();
  }

  async #remove(row) {
    this.#rows.delete(row);
    this.#retitle();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
      await row.node.animate({ opacity: 0 }, { duration: LEAVE_MS, fill: "forwards" }).finished;
    }
    row.node.remove();
    this.#card.hidden = this.#rows.size === 0;
  }

  #retitle() {
    const rows = [...this.#rows];
    const busy = rows.filter((row) => !row.over).length;
    if (rows.length > 0) this.#card.hidden = false;
    if (busy > 0) setText(this.#title, `Ingesting ${count(busy, "source")}`);
    else if (rows.length > 0) setText(this.#title, ending(rows));
    this.#clear.hidden = busy === rows.length;
  }

  #toggle() {
    const folded = this.#card.toggleAttribute("data-folded");
    this.#fold.setAttribute("aria-expanded", String(!folded));
    this.#fold.setAttribute("aria-label", folded ? "Unfold the list" : "Fold the list");
  }

  #makeRoom() {
    document.body.style.setProperty("--toasts-height", `${this.#card.offsetHeight}px`);
  }
}

/** How it went: `3 sources finished`, `1 source failed`, `2 of 3 sources failed`. */
function ending(rows) {
  const failed = rows.filter((row) => row.node.dataset.status === "failed").length;
  const all = count(rows.length, "source");
  if (failed === 0) return `${all} finished`;
  return failed === rows.length ? `${all} failed` : `${failed} of ${all} failed`;
}

const sourceOf = (row) => row.run?.source_id ?? row.upload?.sourceId;
