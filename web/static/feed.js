/**
 * State first, then its changes: fetches the sources, paints them, and follows the stream from
 * the cursor that belongs to them. After a truncation it fetches and paints again; what arrives
 * meanwhile is held, and only what is newer than the state is applied.
 */

import { listSources } from "/static/api.js";
import { Backoff } from "/static/backoff.js";
import { isAfter } from "/static/cursor.js";
import { EventStream } from "/static/stream.js";

export class Feed {
  #sources;
  #onState;
  #streamState = null;
  #painted = "";
  #held = null;
  #fetches = 0;

  /**
   * @param {import("/static/sources.js").Sources} sources what is painted and changed
   * @param {(state: "connecting"|"live"|"reconnecting") => void} onState
   */
  constructor(sources, onState) {
    this.#sources = sources;
    this.#onState = onState;
  }

  /** Loads, connects, and goes on for as long as the page lives. */
  async start() {
    this.#onState("connecting");
    await this.#paint();
    const stream = new EventStream({
      url: "/api/events",
      cursor: this.#painted,
      onEvent: (event) => this.#receive(event),
      onTruncated: () => this.#paint(),
      onState: (state) => this.#onState((this.#streamState = state)),
    });
    stream.start();
  }

  #receive(event) {
    if (this.#held) this.#held.push(event);
    else if (isAfter(event.id, this.#painted)) this.#sources.apply(event);
  }

  async #paint() {
    const fetch = ++this.#fetches;
    this.#held ??= [];
    const state = await this.#fetchUntilAnswered();
    if (fetch !== this.#fetches) return; // truncated again meanwhile: the later fetch paints
    this.#painted = state.cursor;
    this.#sources.paint(state.sources);
    const held = this.#held;
    this.#held = null;
    held.forEach((event) => this.#receive(event));
  }

  async #fetchUntilAnswered() {
    const backoff = new Backoff();
    for (;;) {
      try {
        const state = await listSources();
        // Where it had to wait, the badge says so: back to what the stream last said.
        if (this.#streamState) this.#onState(this.#streamState);
        return state;
      } catch (error) {
        if (error.name !== "Refusal") throw error;
        this.#onState("reconnecting");
        await new Promise((resolve) => setTimeout(resolve, backoff.next()));
      }
    }
  }
}
