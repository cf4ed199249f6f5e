/**
 * A bar with two lines, one over the other, as a video has them: what was sent, and what of that is
 * ingested. So the end of the transfer is never taken back when the server's percent starts to grow.
 */

import { element } from "../elements.js";

export class ProgressBar {
  #transfer = element("span", { class: "bar-transfer" });
  #fill = element("span", { class: "bar-fill" });
  node = element(
    "div",
    { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 },
    this.#transfer,
    this.#fill,
  );

  /** The transfer, as a fraction of 1. */
  transferred(fraction) {
    this.#transfer.style.setProperty("--fraction", fraction);
    this.node.setAttribute("aria-valuetext", `${Math.round(fraction * 100)} percent sent`);
  }

  /** The ingestion, as the server's percent. */
  ingested(percent) {
    this.#transfer.style.setProperty("--fraction", 1);
    this.#fill.style.setProperty("--fraction", percent / 100);
    this.node.setAttribute("aria-valuenow", percent);
    this.node.removeAttribute("aria-valuetext");
  }
}
