/**
 * What is read from the server, again and again while somebody looks: each reading by itself, so
 * that one that fails does not hold up the others. What was read stays shown, and is said to be
 * old.
 */

import { getJson } from "/static/api.js";

const LONGEST_PAUSE_MS = 30_000;
const ANSWER_MS = 10_000; // a server that says nothing for so long is not answering
const REFUSED = new Set([401, 403]);

let token = "";

/** Sends this token from now on; it is kept nowhere else. */
export function useToken(text) {
  token = text.trim();
}

/** Asks the server as whoever is looking. */
export function ask(url, method = "GET") {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  return getJson(url, {
    method,
    headers,
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
}

export class Reading {
  #view;
  #everyMs;
  #onChange;
  #timer = 0;
  #round = 0;
  #failures = 0;
  /** When the server last answered, ISO 8601; "" before that. */
  asOf = "";
  /** Since when it has not, in ms; 0 while it does. */
  silentSince = 0;
  /** The refusal that ended it: who asks may not look. */
  refusal = null;
  /** The last failure that may pass. */
  trouble = null;

  /**
   * @param {{url: string, show: (answer: object) => void}} view what is read is shown there
   * @param {number} everyMs
   * @param {() => void} onChange called after each try
   */
  constructor(view, everyMs, onChange) {
    this.#view = view;
    this.#everyMs = everyMs;
    this.#onChange = onChange;
  }

  /** Reads now, and from then on, for as long as the page can be seen. */
  async read() {
    clearTimeout(this.#timer);
    const round = (this.#round += 1); // an answer that a later reading has overtaken is dropped
    try {
      const answer = await ask(this.#view.url);
      if (round !== this.#round) return;
      this.#settle(answer);
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      if (round !== this.#round) return;
      this.#fail(error);
    }
    this.#onChange();
    if (this.refusal || document.hidden) return;
    const pause = Math.min(this.#everyMs * 2 ** this.#failures, LONGEST_PAUSE_MS);
    this.#timer = setTimeout(() => this.read(), pause);
  }

  /** Reads nothing more until it is asked to. */
  rest() {
    clearTimeout(this.#timer);
  }

  #settle(answer) {
    this.#failures = this.silentSince = 0;
    this.refusal = this.trouble = null;
    this.asOf = answer.as_of;
    this.#view.show(answer);
  }

  #fail(error) {
    this.#failures += 1;
    this.silentSince ||= Date.now();
    this.refusal = REFUSED.has(error.status) ? error : null;
    this.trouble = error;
  }
}
