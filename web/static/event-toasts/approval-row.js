/** One row of the card: an agent asks whether it may run a tool, and with what. */

import { element, setText } from "../elements.js";
import { Row } from "./row.js";
import { lapse } from "./words.js";

export class ApprovalRow extends Row {
  kind = "question";
  #event = null;
  #answered = false;
  #isDoubtful = false;
  #why = element("p", { class: "approval-why" });
  #arguments = element("dl", { class: "approval-arguments" });
  #onLapse;
  #refusal = element("p", { class: "approval-refusal", role: "status" });
  #approve = element("button", { class: "button primary", type: "button" }, "Approve");
  #deny = element("button", { class: "button", type: "button" }, "Deny");
  #buttons = element("div", { class: "approval-buttons" }, this.#approve, this.#deny);

  /** Whether its lapse was told. */
  hasLapsed = false;

  /**
   * @param {(row: ApprovalRow) => void} onClose
   * @param {object} turns
   * @param {(answer: "approve"|"deny", event: object) => void} turns.onAnswer
   * @param {(row: ApprovalRow) => void} turns.onLapse it lapses while it is shown
   */
  constructor(onClose, { onAnswer, onLapse }) {
    super(onClose);
    this.#onLapse = onLapse;
    this.body.append(this.#why, this.#arguments, this.#refusal, this.#buttons);
    this.#approve.addEventListener("click", () => this.#answer("approve", onAnswer));
    this.#deny.addEventListener("click", () => this.#answer("deny", onAnswer));
  }

  get over() {
    return !this.#answered && this.#msLeft <= 0;
  }

  /** What it asks about. */
  get event() {
    return this.#event;
  }

  /** Events are missing, its end may be among them. It can still be answered: the page knows. */
  doubt() {
    this.#isDoubtful = true;
    this.tick();
  }

  /**
   * Asks, or asks again.
   * @param {string} refusal why an answer was of no use
   */
  show(event, refusal) {
    const { tool, arguments: given, message } = event.payload;
    this.#event = event;
    this.#answered = false;
    this.#isDoubtful = false;
    this.hasLapsed = this.over; // before it was shown: nothing to tell
    this.setName(tool);
    this.closeSays("Dismiss the question about");
    this.#approve.setAttribute("aria-label", `Approve ${tool}`);
    this.#deny.setAttribute("aria-label", `Deny ${tool}`);
    setText(this.#why, message);
    this.#why.hidden = !message;
    this.#arguments.replaceChildren(...Object.entries(given ?? {}).flatMap(argument));
    setText(this.#refusal, refusal);
    this.#refusal.hidden = !refusal;
    this.#setBusy(false);
    this.tick();
  }

  tick() {
    if (this.#answered) return;
    this.look("asking", this.over ? "The question has lapsed" : this.#lapse());
    if (this.over && this.hasFocus && !this.#buttons.hidden) this.focus(); // which are to go
    this.#buttons.hidden = this.over;
    if (!this.over || this.hasLapsed) return;
    this.hasLapsed = true;
    this.#onLapse(this);
  }

  get #msLeft() {
    const { expires_at: lapses } = this.#event.payload;
    return lapses ? Date.parse(lapses) - Date.now() : Infinity;
  }

  #lapse() {
    if (this.#isDoubtful) return "May be over: events were missed";
    const left = this.#msLeft;
    return left === Infinity ? "Approval needed" : `Approval needed, ${lapse(left)}`;
  }

  // Not disabled meanwhile: that would lose the focus.
  #answer(answer, onAnswer) {
    if (this.#answered) return;
    this.#answered = true;
    this.#setBusy(true);
    this.#refusal.hidden = true;
    this.say(answer === "approve" ? "Approving" : "Denying");
    onAnswer(answer, this.#event);
  }

  #setBusy(busy) {
    for (const button of [this.#approve, this.#deny]) {
      button.setAttribute("aria-disabled", String(busy));
    }
  }
}

// In full: nobody should approve what they can't see.
function argument([name, value]) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  return [element("dt", {}, name), element("dd", {}, text)];
}
