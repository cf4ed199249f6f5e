/** Tells assistive technology what became of a run: its turns, not every percent. */

import { byId, element } from "/static/elements.js";
import { failedFiles, hasEnded } from "/static/runs.js";
import { failureCount, label, runLine } from "/static/words.js";

const KEPT = 5;

export class Announcer {
  #region = byId("announcer");
  #told = new Map();

  /** Announces a run whose status is not the one announced last. */
  tell(run) {
    const turn = `${run.run_id} ${run.status}`;
    if (this.#told.get(run.source_id) === turn) return;
    this.#told.set(run.source_id, turn);
    if (run.status === "running") this.#say(`${run.name}: ${label(run.status)}`);
    else this.#say(`${run.name}: ${label(run.status)}. ${sentence(run)}`);
  }

  /** Announces an upload that the server didn't get or didn't take. */
  tellFailed({ name, error }) {
    this.#say(`${name}: ${error.message}`);
  }

  #say(text) {
    this.#region.append(element("p", {}, text));
    while (this.#region.childElementCount > KEPT) this.#region.firstElementChild.remove();
  }
}

function sentence(run) {
  const lost = hasEnded(run) && failedFiles(run).length > 0;
  return lost ? `${runLine(run)}. ${failureCount(run)}.` : runLine(run);
}
