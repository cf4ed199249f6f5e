/**
 * A user's events over Server-Sent Events, each one once and in order.
 *
 * EventSource reconnects by itself, with Last-Event-ID, after a response that ends; the server
 * ends some on purpose. It gives up for good on any status but 200 (429, 503): from there this
 * module goes on, from the last id it handled, with backoff.
 */

import { Backoff } from "/static/backoff.js";
import { isAfter } from "/static/cursor.js";

const QUIET_MS = 1000; // a reconnect that is done sooner is nobody's business

export class EventStream {
  #url;
  #cursor;
  #onEvent;
  #onTruncated;
  #onState;
  #source = null;
  #backoff = new Backoff();
  #retryTimer = 0;
  #quietTimer = 0;

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.cursor where to go on from
   * @param {(event: object) => void} options.onEvent an envelope, never seen before
   * @param {() => void} options.onTruncated events are missing: fetch the state again
   * @param {(state: "live"|"reconnecting") => void} options.onState
   */
  constructor({ url, cursor, onEvent, onTruncated, onState }) {
    this.#url = url;
    this.#cursor = cursor;
    this.#onEvent = onEvent;
    this.#onTruncated = onTruncated;
    this.#onState = onState;
  }

  /** Connects, and stays connected. */
  start() {
    addEventListener("online", () => this.#retryNow());
    this.#open();
  }

  #open() {
    const query = new URLSearchParams({ last_event_id: this.#cursor });
    this.#source = new EventSource(`${this.#url}?${query}`);
    this.#source.onopen = () => this.#opened();
    this.#source.onmessage = (message) => this.#receive(JSON.parse(message.data));
    this.#source.onerror = () => this.#interrupted();
  }

  #opened() {
    clearTimeout(this.#quietTimer);
    this.#quietTimer = 0;
    this.#backoff.reset();
    this.#onState("live");
  }

  #receive(event) {
    if (event.type === "backlog.truncated") {
      // Ids may start anew after a reset, so the old floor would hide what comes.
      this.#cursor = event.payload.cursor ?? "";
      this.#onTruncated();
      return;
    }
    if (!isAfter(event.id, this.#cursor)) return;
    this.#onEvent(event);
    this.#cursor = event.id;
  }

  #interrupted() {
    this.#quietTimer ||= setTimeout(() => this.#onState("reconnecting"), QUIET_MS);
    if (this.#source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#retryNow(), this.#backoff.next());
  }

  #retryNow() {
    if (this.#source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#retryTimer);
    this.#open();
  }
}
