/** What can be done about a source: cancel its run, or ingest it again. */

import { cancelSource, reingestSource } from "/static/api.js";
import { element, setText } from "/static/elements.js";
import { hasEnded } from "/static/event-toasts/runs.js";

const CANCEL = { label: "Cancel", ask: cancelSource };
const REINGEST = { label: "Ingest again", ask: reingestSource };

export class SourceAction {
  button = element("button", { class: "text-button source-action", type: "button" });
  refusal = element("p", { class: "source-refusal", role: "status" });
  #run = null;
  #busy = false;
  #mayPass = false; // what was refused

  constructor() {
    this.button.addEventListener("click", () => this.#ask());
  }

  /** Offers what fits the run. What was refused is forgotten once the run is another or elsewhere. */
  show(run) {
    const moved = this.#run?.run_id !== run.run_id || this.#run.status !== run.status;
    this.#run = run;
    if (moved) setText(this.refusal, "");
    const { label } = this.#action;
    setText(this.button, label);
    this.button.setAttribute("aria-label", `${label}: ${run.name}`);
  }

  /** The server answers again: a refusal for want of it says nothing any more. */
  recover() {
    if (this.#mayPass) setText(this.refusal, "");
  }

  get #action() {
    return hasEnded(this.#run) ? REINGEST : CANCEL;
  }

  // The stream tells what comes of it. Not disabled meanwhile: that would lose the focus.
  async #ask() {
    if (this.#busy) return;
    this.#setBusy(true);
    setText(this.refusal, "");
    try {
      await this.#action.ask(this.#run.source_id);
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      this.#mayPass = error.passing;
      setText(this.refusal, error.message);
    } finally {
      this.#setBusy(false);
    }
  }

  #setBusy(busy) {
    this.#busy = busy;
    this.button.setAttribute("aria-disabled", String(busy));
  }
}
