/** The journal of answers: its size, how long it is kept, and what was last removed. */

import { byId, element, setText } from "/static/elements.js";
import { bytes, count, number, since } from "/static/operator/words.js";

export class Journal {
  url = "/api/operator/journal";
  #values = new Map();

  show({ days_kept: daysKept, journal, last_pruning: last }) {
    setText(byId("figure-journal"), bytes(journal.bytes));
    setText(byId("figure-kept"), `kept for ${count(daysKept, "day")}`);
    this.#say("Size on disk", bytes(journal.bytes));
    this.#say("Answers", `about ${number(journal.messages)}`);
    this.#say("Their events", `about ${number(journal.events)}`);
    this.#say("Oldest day", journal.oldest_day ?? "none");
    this.#say("Kept for", count(daysKept, "day"));
    this.#say("Last pruning", last ? since(last.at) : "none on record");
    this.#say("It removed", last ? removed(last) : "–");
  }

  #say(name, value) {
    if (!this.#values.has(name)) {
      const said = element("dd");
      this.#values.set(name, said);
      byId("journal").append(element("div", {}, element("dt", {}, name), said));
    }
    setText(this.#values.get(name), value);
  }
}

function removed({ removed: days, kept, messages, bytes: size }) {
  const gone = [count(days, "day"), count(messages, "answer"), bytes(size)].join(", ");
  const what = days === 0 ? "nothing" : gone;
  return kept === 0 ? what : `${what}; ${count(kept, "day")} had to wait`;
}
