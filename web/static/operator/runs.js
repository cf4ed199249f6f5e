/** The table of open runs, by state and in pages; each can be cancelled. */

import { byId, element, setText, setTitle } from "/static/elements.js";
import { confirm } from "/static/operator/confirm.js";
import { ask } from "/static/operator/readings.js";
import { cell, headCell, Rows, tableRow } from "/static/operator/rows.js";
import { age, label, number, runLine } from "/static/operator/words.js";

const PAGE = 50;
const STATES = ["queued", "running", "retrying", "stalled"];
const LOOKS = { running: "good", retrying: "wait", stalled: "wait" };

class RunRow {
  #name = element("span", { class: "run-name" });
  #owner = element("span", { class: "run-owner" });
  #state = element("span", { class: "chip" });
  #line = element("span", { class: "run-line" });
  #percent = element("span", { class: "run-percent" });
  #bar = element("meter", { class: "run-bar", min: 0, max: 100, "aria-hidden": "true" });
  #attempt = cell("number");
  #worker = element("span", { class: "run-worker" });
  #accepted = cell("number");
  #heard = cell("number");
  #cancel = element("button", { class: "text-button", type: "button" }, "Cancel");
  node = tableRow("run", [
    ["Run", headCell(this.#name, this.#owner)],
    ["State", cell("", this.#state)],
    ["Progress", cell("progress", this.#line, this.#percent, this.#bar)],
    ["Attempt", this.#attempt],
    ["Worker", cell("", this.#worker)],
    ["Accepted", this.#accepted],
    ["Last heard", this.#heard],
    ["", cell("action", this.#cancel)],
  ]);

  constructor(onChange) {
    this.#cancel.addEventListener("click", () => this.#confirm(onChange));
  }

  show(run) {
    this.run = run;
    this.node.dataset.run = run.run_id;
    this.node.dataset.status = run.status;
    setText(this.#name, run.name);
    setTitle(this.#name, `${run.name}\nsource ${run.source_id}\nrun ${run.run_id}`);
    setText(this.#owner, run.user_id);
    setText(this.#state, label(run.status));
    this.#state.dataset.look = LOOKS[run.status] ?? "plain";
    setText(this.#line, runLine({ ...run, attempt: run.status === "running" ? 1 : run.attempt }));
    this.#line.title = this.#line.textContent;
    setText(this.#percent, run.status === "queued" ? "" : `${run.percent}%`);
    this.#bar.hidden = run.status === "queued";
    this.#bar.value = run.percent;
    const of = run.attempts ? ` of ${run.attempts}` : "";
    setText(this.#attempt, run.attempt === 0 ? "–" : `${run.attempt}${of}`);
    setText(this.#worker, worker(run));
    setTitle(this.#worker, run.worker);
    this.#worker.dataset.gone = String(run.at_work === 0);
    setText(this.#accepted, age(run.accepted_at));
    this.#accepted.title = new Date(run.accepted_at).toLocaleString("en");
    setText(this.#heard, age(run.heard_at));
    this.#heard.title = new Date(run.heard_at).toLocaleString("en");
    this.#cancel.setAttribute("aria-label", `Cancel: ${run.name} of ${run.user_id}`);
  }

  #confirm(onChange) {
    const { run } = this;
    confirm({
      title: "Cancel this run?",
      what:
        `${run.name} of ${run.user_id}, ${label(run.status).toLowerCase()} at ${run.percent}%. ` +
        "Its user is told that it was cancelled, and can start it again.",
      verb: "Cancel the run",
      run: async () => {
        await ask(`/api/operator/runs/${encodeURIComponent(run.run_id)}`, "DELETE");
        onChange();
      },
    });
  }
}

// Who works on it; of a run on which nobody does, who was the last.
function worker({ worker: name, at_work: atWork }) {
  if (!name) return "none yet";
  return atWork > 1 ? `${name} +${atWork - 1}` : name;
}

export class Runs {
  #rows;
  #read;
  #state = "";
  #offset = 0;
  #buttons = new Map();
  #order = byId("order");

  /** @param {() => void} read called where another reading is wanted at once */
  constructor(read) {
    this.#read = read;
    this.#rows = new Rows(byId("runs"), () => new RunRow(read));
    for (const state of ["", ...STATES]) this.#addButton(state);
    this.#order.addEventListener("change", () => this.#turn(0));
    this.#addTurn(byId("page-before"), -PAGE);
    this.#addTurn(byId("page-after"), PAGE);
  }

  /** Where to read: the page that is shown. */
  get url() {
    const query = { order: this.#order.value, offset: this.#offset, limit: PAGE };
    if (this.#state) query.state = this.#state;
    return `/api/operator/runs?${new URLSearchParams(query)}`;
  }

  show({ counts, more, matching, offset, runs }) {
    const all = STATES.reduce((sum, state) => sum + counts[state], 0);
    const plus = more ? "+" : "";
    setText(byId("figure-runs"), number(all) + plus);
    setText(byId("figure-stalled"), troubles(counts));
    byId("open-runs").dataset.look = counts.stalled + counts.retrying > 0 ? "wait" : "good";
    for (const [state, { tally }] of this.#buttons) {
      setText(tally, number(state ? counts[state] : all) + plus);
    }
    this.#rows.paint(runs, (run) => run.run_id);
    byId("runs").hidden = runs.length === 0;
    byId("no-runs").hidden = runs.length > 0;
    const wanted = this.#state ? label(this.#state).toLowerCase() : "open";
    setText(byId("no-runs"), `No run is ${wanted}.`);
    this.#paintPages(matching, offset, runs.length);
    if (runs.length === 0 && offset > 0) this.#turn(0);
  }

  #paintPages(matching, offset, shown) {
    const isOnePage = matching <= PAGE;
    if (isOnePage && byId("pages").contains(document.activeElement)) byId("runs-title").focus();
    byId("pages").hidden = isOnePage;
    const [first, last] = [number(offset + 1), number(offset + shown)];
    setText(byId("page-place"), `${first} to ${last} of ${number(matching)}`);
    setEnabled(byId("page-before"), offset > 0);
    setEnabled(byId("page-after"), offset + shown < matching);
  }

  #addButton(state) {
    const tally = element("span", { class: "tally" }, "–");
    const button = element(
      "button",
      { class: "state", type: "button", "aria-pressed": String(state === this.#state) },
      state ? label(state) : "All",
      " ",
      tally,
    );
    button.addEventListener("click", () => {
      this.#state = state;
      for (const [each, { button: one }] of this.#buttons) {
        one.setAttribute("aria-pressed", String(each === state));
      }
      this.#turn(0);
    });
    this.#buttons.set(state, { button, tally });
    byId("states").append(button);
  }

  #addTurn(button, by) {
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") !== "true") this.#turn(this.#offset + by);
    });
  }

  #turn(offset) {
    this.#offset = Math.max(0, offset);
    this.#read();
  }
}

// Not `disabled`: that would lose the keyboard's focus.
function setEnabled(button, isEnabled) {
  button.setAttribute("aria-disabled", String(!isEnabled));
}

function troubles({ stalled, retrying }) {
  const said = [
    stalled && `${number(stalled)} stalled`,
    retrying && `${number(retrying)} retrying`,
  ];
  return said.filter(Boolean).join(", ") || "none is in trouble";
}
