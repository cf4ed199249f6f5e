/**
 * The rows of everything that is no run: questions of agents, sign-ins, and what the page has a
 * template for. No snapshot has them, so their events are kept over a reload.
 */

import { ApprovalRow } from "./approval-row.js";
import { SignInRow, TemplateRow } from "./note-row.js";

const APPROVAL = "tool.approval.required";
const CLEARED = "tool.approval.cleared";
const SIGN_INS = new Set(["mcp.oauth.completed", "mcp.oauth.failed"]);
const OUTCOMES = {
  approved: "It was approved.",
  denied: "It was denied.",
  expired: "The question has lapsed.",
};

export class Notices {
  #rows = new Map(); // by what they are about
  #card;
  #kept;
  #announcer;
  #emit;
  #host;

  /**
   * @param {object} parts
   * @param {import("./card.js").Card} parts.card
   * @param {import("./kept.js").Kept} parts.kept
   * @param {import("./announcer.js").Announcer} parts.announcer
   * @param {(name: string, detail: object) => void} parts.emit tells the page
   * @param {HTMLElement} parts.host whose children the templates are
   */
  constructor({ card, kept, announcer, emit, host }) {
    this.#card = card;
    this.#kept = kept;
    this.#announcer = announcer;
    this.#emit = emit;
    this.#host = host;
  }

  /** Shows again what there was before a reload. */
  restore() {
    for (const [key, { event, isDoubtful }] of this.#kept.notices) {
      if (this.#rows.has(key)) continue;
      const row = this.#show(event);
      if (isDoubtful) row?.doubt?.();
    }
  }

  /** Events are missing: whether a question still waits is not known any more. */
  doubt() {
    for (const [key, row] of this.#rows) {
      if (!(row instanceof ApprovalRow)) continue;
      row.doubt();
      this.#kept.keepNotice(key, row.event, true);
    }
  }

  /** The user has signed out. */
  dropAll() {
    for (const key of [...this.#rows.keys()]) this.#remove(key);
  }

  /** Those that are over were dismissed in another tab. A question waits for the word on it. */
  dropOver(gone) {
    for (const [key, row] of [...this.#rows]) if (row.over && gone.has(key)) this.#remove(key);
  }

  take(event) {
    const key = keyOf(event);
    if (event.type === CLEARED) this.#clear(key, event);
    const row = this.#show(event);
    if (!row) return;
    this.#kept.keepNotice(key, event);
    if (row instanceof ApprovalRow) this.#announcer.ask(question(row, event));
    else this.#announcer.say(row.told);
  }

  /** Asks a question again, with the reason why its answer was of no use. */
  askAgain(event, reason) {
    const row = this.#rows.get(keyOf(event));
    if (!(row instanceof ApprovalRow)) return;
    row.show(event, reason);
    this.#card.retitle();
  }

  /** Dismisses a row; says whether it is one of these. */
  dismiss(row) {
    const found = [...this.#rows].find(([, other]) => other === row);
    if (found) this.#remove(found[0]);
    return Boolean(found);
  }

  /** Takes all rows out of the document; what is kept stays. */
  discard() {
    for (const row of this.#rows.values()) row.remove();
  }

  #show(event) {
    const template = this.#templateOf(event.type);
    if (template) return this.#shown(TemplateRow, event, template, this.#host);
    if (event.type === APPROVAL) return this.#shown(ApprovalRow, event, "", this.#turns);
    if (SIGN_INS.has(event.type)) return this.#shown(SignInRow, event);
    return null;
  }

  #shown(Kind, event, how, given) {
    const key = keyOf(event);
    const before = this.#rows.get(key);
    const row = before instanceof Kind ? before : new Kind((closed) => this.dismiss(closed), given);
    row.show(event, how);
    if (row !== before) {
      this.#rows.set(key, row);
      this.#card.add(row);
      if (before) this.#card.discard(before, row);
    }
    this.#card.retitle();
    return row;
  }

  #turns = {
    onAnswer: (answer, event) => this.#emit(answer, event),
    onLapse: (row) => this.#announcer.say(`${row.name}: ${OUTCOMES.expired}`),
  };

  #clear(key, { payload }) {
    const row = this.#rows.get(key);
    if (!row) return;
    const outcome = OUTCOMES[payload.outcome] ?? "The question was withdrawn.";
    if (!row.hasLapsed) this.#announcer.say(`${row.name}: ${outcome}`);
    this.#remove(key);
  }

  #remove(key) {
    const row = this.#rows.get(key);
    this.#rows.delete(key);
    this.#kept.dropNotice(key);
    this.#card.remove(row);
  }

  #templateOf(type) {
    return [...this.#host.children].find(
      (child) => child.localName === "template" && child.getAttribute("type") === type,
    );
  }
}

// One row for each thing: what is said of it later takes the place of what was said before.
function keyOf({ id, scope, payload }) {
  if (payload?.approval_id) return `approval ${payload.approval_id}`;
  return scope?.kind && scope.id ? `${scope.kind} ${scope.id}` : `event ${id}`;
}

const question = (row, { payload }) =>
  `Approval needed: ${row.name}. ${payload.message ?? ""}`;
