/** Tells assistive technology what became of a run: its turns, not every percent. */

import { element } from "../elements.js";
import { failedFiles, hasEnded } from "./runs.js";
import { failureCount, label, runLine } from "./words.js";

const MOST = 5;
const MOST_TOLD = 500;
const SINGLY = 3; // of what comes at once
const GATHER_MS = 150;

// Also before the stylesheets are there.
const UNSEEN = {
  position: "absolute",
  width: "1px",
  height: "1px",
  overflow: "hidden",
  clipPath: "inset(50%)",
};

export class Announcer {
  node = element("div", { class: "visually-hidden", id: "announcer", "aria-live": "polite" });
  #told = new Map(); // by source
  #gathered = [];

  constructor() {
    Object.assign(this.node.style, UNSEEN);
  }

  /** A run's status was announced before. */
  know(run) {
    this.#told.delete(run.source_id);
    this.#told.set(run.source_id, turn(run));
    if (this.#told.size > MOST_TOLD) this.#told.delete(this.#told.keys().next().value);
  }

  /** Announces a run whose status is not the one announced last. */
  tell(run) {
    if (this.#told.get(run.source_id) === turn(run)) return;
    this.know(run);
    if (run.status === "running") this.say(`${run.name}: ${label(run.status)}`);
    else this.say(`${run.name}: ${label(run.status)}. ${sentence(run)}`);
  }

  /** Announces an upload that the server didn't get or didn't take. */
  tellFailed({ name, error }) {
    this.say(`${name}: ${error.message}`);
  }

  /** Announces anything else. Of many at once the first are said, and how many more there are. */
  say(text) {
    if (this.#gathered.push(text) === 1) setTimeout(() => this.#sayGathered(), GATHER_MS);
  }

  /** Announces what waits for an answer: by itself, whatever else there is. */
  ask(text) {
    this.node.append(element("p", {}, text));
    while (this.node.childElementCount > MOST) this.node.firstElementChild.remove();
  }

  #sayGathered() {
    const all = this.#gathered.splice(0);
    const more = all.length - SINGLY;
    for (const text of more > 1 ? all.slice(0, SINGLY) : all) this.ask(text);
    if (more > 1) this.ask(`And ${more} more changes.`);
  }
}

const turn = (run) => `${run.run_id} ${run.status}`;

function sentence(run) {
  const lost = hasEnded(run) && failedFiles(run).length > 0;
  return lost ? `${runLine(run)}. ${failureCount(run)}.` : runLine(run);
}
