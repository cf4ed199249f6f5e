/** The list of sources on the page: name, state, results and when, newest first. */

import { SourceAction } from "/static/source-action.js";
import { byId, element, icon, setIcon, setText, setTitle } from "/static/elements.js";
import { Failures } from "/static/event-toasts/failures.js";
import { ProgressBar } from "/static/event-toasts/progress.js";
import { hasEnded } from "/static/event-toasts/runs.js";
import { count, label, look, runLine, since } from "/static/event-toasts/words.js";

const TICK_MS = 1000;

class SourceRow {
  #icon = icon("queued");
  #name = element("span", { class: "source-name" });
  #line = element("p", { class: "source-line" });
  #chip = element("span", { class: "chip" });
  #when = element("time", { class: "source-when" });
  #failures = new Failures();
  #bar = new ProgressBar();
  #action = new SourceAction();
  node = element(
    "li",
    { class: "source" },
    this.#icon,
    element(
      "div",
      { class: "source-body" },
      this.#name,
      this.#line,
      this.#failures.node,
      this.#action.refusal,
    ),
    element("div", { class: "source-side" }, this.#chip, this.#when, this.#action.button),
    this.#bar.node,
  );

  show(run) {
    this.run = run;
    const status = look(run);
    this.node.dataset.status = status;
    this.node.dataset.source = run.source_id;
    setIcon(this.#icon, status);
    setText(this.#name, run.name);
    setTitle(this.#name, run.name);
    setText(this.#chip, status === "running" ? `${run.percent}%` : label(status));
    this.#failures.show(run);
    this.#action.show(run);
    this.#bar.node.setAttribute("aria-label", run.name);
    this.#bar.node.hidden = hasEnded(run);
    this.#bar.ingested(run.percent);
    this.tick();
  }

  /** The server answers again. */
  recover() {
    this.#action.recover();
  }

  // What tells a time: how long ago it was, and when the next try comes.
  tick() {
    setText(this.#line, runLine(this.run));
    const moment = hasEnded(this.run) ? this.run.updated_at : this.run.accepted_at;
    this.#when.dateTime = moment;
    this.#when.title = new Date(moment).toLocaleString("en");
    setText(this.#when, since(moment));
  }
}

export class SourceList {
  #list = byId("sources");
  #empty = byId("sources-empty");
  #note = byId("sources-note");
  #rows = new Map();
  #sources;

  /** @param {import("/static/event-toasts/sources.js").Sources} sources shown and followed */
  constructor(sources) {
    this.#sources = sources;
    setInterval(() => this.#rows.forEach((row) => row.tick()), TICK_MS);
  }

  /** The server answers again: what failed for want of it is shown no longer. */
  recover() {
    this.#rows.forEach((row) => row.recover());
  }

  /** Shows one run where its row is, or puts a new one in its place. */
  showRun(run) {
    const row = this.#rows.get(run.source_id);
    if (!row || row.run.accepted_at !== run.accepted_at) this.paint(this.#sources.list());
    else row.show(run);
  }

  /** Shows all runs, in this order. */
  paint(runs) {
    const before = this.#rows;
    this.#rows = new Map();
    for (const run of runs) {
      const row = before.get(run.source_id) ?? new SourceRow();
      row.show(run);
      this.#rows.set(run.source_id, row);
    }
    const focused = document.activeElement;
    this.#list.replaceChildren(...[...this.#rows.values()].map(({ node }) => node));
    if (this.#list.contains(focused)) focused.focus({ preventScroll: true });
    this.#empty.hidden = runs.length > 0;
    setText(this.#note, runs.length > 0 ? count(runs.length, "source") : "");
  }
}
