/** One row of the card: an upload, then the run that it became. */

import { element, setText } from "../elements.js";
import { Failures } from "./failures.js";
import { ProgressBar } from "./progress.js";
import { Row } from "./row.js";
import { hasEnded } from "./runs.js";
import { look, runLine, uploadLine } from "./words.js";

export class RunRow extends Row {
  kind = "run";
  run = null;
  upload = null;
  #percent = element("span", { class: "toast-percent" });
  #again = element("button", { class: "text-button", type: "button", hidden: true }, "Try again");
  #failures = new Failures();
  #bar = new ProgressBar();

  /**
   * @param {string} name
   * @param {{onClose: (row: RunRow) => void, onRetry: (row: RunRow) => void}} handlers
   */
  constructor(name, { onClose, onRetry }) {
    super(onClose);
    this.head.append(this.#percent);
    this.body.append(this.#bar.node, this.#failures.node, this.#again);
    this.setName(name);
    this.#again.addEventListener("click", () => onRetry(this));
  }

  get over() {
    return this.run ? hasEnded(this.run) : this.upload.phase === "failed";
  }

  get sourceId() {
    return this.run?.source_id ?? this.upload?.sourceId;
  }

  get runId() {
    return this.run?.run_id ?? this.upload?.runId;
  }

  setName(name) {
    super.setName(name);
    this.#bar.node.setAttribute("aria-label", name);
  }

  /** Whether this upload may have become a run, before the server's answer has said so. */
  mayBe(run) {
    if (this.run || !this.upload || this.upload.sourceId) return false;
    return ["uploading", "handing over"].includes(this.upload.phase) && this.upload.name === run.name;
  }

  /** Shows an upload that isn't a run yet. */
  showUpload(upload) {
    this.upload = upload;
    const failed = upload.phase === "failed";
    this.look(failed ? "failed" : "uploading", uploadLine(upload));
    this.#again.hidden = !(failed && upload.error.passing);
    this.#bar.transferred(upload.size ? upload.sent / upload.size : 0);
    setText(this.#percent, "");
    this.closeSays(failed ? "Dismiss" : "Cancel the upload of");
  }

  /** The server has taken the upload: whose row it is from now on. */
  accepted() {
    this.node.dataset.source = this.upload.sourceId;
    this.closeSays("Dismiss");
  }

  /** Shows a run. */
  showRun(run) {
    this.node.dataset.source = run.source_id;
    this.run = run;
    this.setName(run.name);
    this.look(look(run), runLine(run));
    this.#again.hidden = true;
    this.#bar.ingested(run.percent);
    setText(this.#percent, run.status === "queued" || hasEnded(run) ? "" : `${run.percent}%`);
    this.#failures.show(run);
    this.closeSays("Dismiss");
  }

  // Counts down to the next try, where one is set.
  tick() {
    if (this.run?.status === "retrying") this.say(runLine(this.run));
  }
}
