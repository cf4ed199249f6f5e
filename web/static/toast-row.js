/** One row of the toast card: an upload, then the run that it became. */

import { element, icon, setIcon, setText } from "/static/elements.js";
import { Failures } from "/static/failures.js";
import { ProgressBar } from "/static/progress.js";
import { hasEnded } from "/static/runs.js";
import { look, runLine, uploadLine } from "/static/words.js";

export class ToastRow {
  run = null;
  upload = null;
  #icon = icon("queued");
  #name = element("span", { class: "toast-name" });
  #percent = element("span", { class: "toast-percent" });
  #line = element("p", { class: "toast-line" });
  #again = element("button", { class: "text-button", type: "button", hidden: true }, "Try again");
  #close = element("button", { class: "icon-button", type: "button" }, icon("close"));
  #failures = new Failures();
  #bar;

  /**
   * @param {string} name
   * @param {{onClose: (row: ToastRow) => void, onRetry: (row: ToastRow) => void}} handlers
   */
  constructor(name, { onClose, onRetry }) {
    this.#bar = new ProgressBar(name);
    this.node = element(
      "li",
      { class: "toast" },
      this.#icon,
      element(
        "div",
        { class: "toast-body" },
        element("div", { class: "toast-head" }, this.#name, this.#percent),
        this.#line,
        this.#bar.node,
        this.#failures.node,
        this.#again,
      ),
      this.#close,
    );
    this.#setName(name);
    this.#close.addEventListener("click", () => onClose(this));
    this.#again.addEventListener("click", () => onRetry(this));
  }

  /** Whether the row says something that is over. */
  get over() {
    return this.run ? hasEnded(this.run) : this.upload.phase === "failed";
  }

  /** Shows an upload that isn't a run yet. */
  showUpload(upload) {
    this.upload = upload;
    const failed = upload.phase === "failed";
    this.#look(failed ? "failed" : "uploading", uploadLine(upload));
    this.#again.hidden = !(failed && upload.error.passing);
    this.#bar.transferred(upload.size ? upload.sent / upload.size : 0);
    setText(this.#percent, "");
    this.#closeSays(failed ? "Dismiss" : "Cancel the upload of");
  }

  /** Shows a run. */
  showRun(run) {
    if (this.run?.source_id !== run.source_id) this.node.dataset.source = run.source_id;
    this.run = run;
    this.#setName(run.name);
    this.#look(look(run), runLine(run));
    this.#again.hidden = true;
    this.#bar.ingested(run.percent);
    setText(this.#percent, run.status === "queued" || hasEnded(run) ? "" : `${run.percent}%`);
    this.#failures.show(run);
    this.#closeSays("Dismiss");
  }

  /** Counts down to the next try, where one is set. */
  tick() {
    if (this.run?.status === "retrying") setText(this.#line, runLine(this.run));
  }

  /** Moves the keyboard's focus to this row. */
  focus() {
    this.#close.focus();
  }

  #look(status, line) {
    this.node.dataset.status = status;
    setIcon(this.#icon, status);
    setText(this.#line, line);
  }

  #setName(name) {
    setText(this.#name, name);
    this.#name.title = name;
    this.#bar.node.setAttribute("aria-label", name);
  }

  #closeSays(verb) {
    this.#close.setAttribute("aria-label", `${verb} ${this.#name.textContent}`);
  }
}
