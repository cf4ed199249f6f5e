/** The files of a run that failed, by name and reason, folded away until asked for. */

import { element, setText } from "../elements.js";
import { failedFiles } from "./runs.js";
import { failureCount } from "./words.js";

export class Failures {
  #summary = element("summary");
  #list = element("ul", { tabindex: 0 }); // it scrolls
  node = element("details", { class: "failures", hidden: true }, this.#summary, this.#list);

  /** Shows what a run lost; nothing where there is nothing to add. */
  show(run) {
    const failed = failedFiles(run);
    // Where the only file failed, the run's own error says it already.
    this.node.hidden = failed.length < (run.status === "failed" ? 2 : 1);
    if (this.node.hidden) return;
    setText(this.#summary, failureCount(run));
    this.#list.replaceChildren(
      ...failed.map(({ name, message }) =>
        element(
          "li",
          {},
          element("span", { class: "failure-name" }, name),
          element("span", { class: "failure-reason" }, message),
        ),
      ),
    );
    const more = run.result?.more_failed_files ?? 0;
    if (more > 0) this.#list.append(element("li", {}, `and ${more} more`));
  }
}
