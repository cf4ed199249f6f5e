/**
 * The events of one answer, each once and in order, until it is over.
 *
 * An answer outlives its connection: this comes back with the number of the last event that it
 * handled. The server closes a stream that is over, and EventSource would come again; what was the
 * last event says whether to let it.
 */

import { readAnswer } from "/static/api.js";
import { Backoff } from "/static/backoff.js";

const ENDS = new Set(["end", "error"]);

export class AnswerStream {
  #id;
  #last = -1;
  #ended = false;
  #onEvent;
  #onState;
  #source = null;
  #backoff = new Backoff();
  #timer = 0;

  /**
   * @param {object} options
   * @param {string} options.id the message's
   * @param {(event: object) => void} options.onEvent one never seen before; `restart` clears
   * @param {(state: "live"|"reconnecting"|"cut"|"over"|"gone") => void} options.onState
   */
  constructor({ id, onEvent, onState }) {
    this.#id = id;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  /** Connects, or connects again, from where it was. */
  open() {
    this.close();
    const cursor = this.#last < 0 ? "" : String(this.#last);
    const query = new URLSearchParams({ last_event_id: cursor });
    this.#source = new EventSource(`/api/messages/${encodeURIComponent(this.#id)}/events?${query}`);
    this.#source.onopen = () => this.#opened();
    this.#source.onmessage = (message) => this.#receive(message);
    this.#source.onerror = () => this.#interrupted();
  }

  /** Drops the connection; the answer goes on without it. */
  cut() {
    this.close();
    this.#onState("cut");
  }

  /** Ends the connection, and says nothing. */
  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #opened() {
    this.#backoff.reset();
    this.#onState("live");
  }

  #receive(message) {
    const event = JSON.parse(message.data);
    if (event.type === "backlog.truncated") {
      // It starts anew: what was shown is sent again.
      this.#last = -1;
      this.#onEvent({ type: "restart" });
      return;
    }
    const number = Number(message.lastEventId);
    if (number <= this.#last) return;
    this.#last = number;
    this.#ended = ENDS.has(event.type); // one that is not the last was followed by a restart
    this.#onEvent(event);
  }

  #interrupted() {
    if (this.#ended) {
      this.close();
      this.#onState("over");
      return;
    }
    this.#onState("reconnecting");
    if (this.#source?.readyState !== EventSource.CLOSED) return; // it comes again by itself
    this.#timer = setTimeout(() => this.#lookAndOpen(), this.#backoff.next());
  }

  /** EventSource tells no status: one that is not there is not asked for again and again. */
  async #lookAndOpen() {
    try {
      await readAnswer(this.#id);
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      if (!error.passing) {
        this.#onState("gone");
        return;
      }
    }
    if (this.#source?.readyState === EventSource.CLOSED) this.open();
  }
}
