/** Tells assistive technology what became of a run: its turns, not every percent. */

import { element } from "../elements.js";
import { failedFiles, hasEnded } from "./runs.js";
import { failureCount, label, runLine } from "./words.js";

const MOST = 5;

export class Announcer {
  node = element("div", { class: "visually-hidden", id: "announcer", "aria-live": "polite" });
  #told = new Map();

  /** Announces a run whose status is not the one announced last. */
  tell(run) {
    const turn = `${run.run_id} ${run.status}`;
    if (this.#told.get(run.source_id) === turn) return;
    this.#told.set(run.source_id, turn);
    if (run.status === "running") this.say(`${run.name}: ${label(run.status)}`);
    else this.say(`${run.name}: ${label(run.status)}. ${sentence(run)}`);
  }

  /** Announces an upload that the server didn't get or didn't take. */
  tellFailed({ name, error }) {
    this.say(`${name}: ${error.message}`);
  }

  /** Announces anything else. */
  say(text) {
    this.node.append(element("p", {}, text));
    while (this.node.childElementCount > MOST) this.node.firstElementChild.remove();
  }
}

function sentence(run) {
  const lost = hasEnded(run) && failedFiles(run).length > 0;
  return lost ? `${runLine(run)}. ${failureCount(run)}.` : runLine(run);
}
