/** State first, then its changes: paints the sources as they stand and follows them from there. */

import { connect } from "/static/eventstream.js";

const QUIET_MS = 1000; // a reconnect that is done sooner is nobody's business
const SHOWN = { live: "live", catching_up: "live", stopped: "stopped" };

export class Feed {
  #sources;
  #onState;
  #shown = "connecting";
  #quietTimer = 0;

  /**
   * @param {import("/static/sources.js").Sources} sources what is painted and changed
   * @param {(state: "connecting"|"live"|"reconnecting"|"stopped") => void} onState
   */
  constructor(sources, onState) {
    this.#sources = sources;
    this.#onState = onState;
  }

  /** Loads, connects, and goes on for as long as the page lives. */
  start() {
    this.#onState(this.#shown);
    connect({
      snapshotFirst: true,
      onSnapshot: ({ sources }) => this.#sources.paint(sources),
      onEvent: (event) => this.#sources.apply(event),
      onState: ({ state }) => this.#follow(state),
    });
  }

  #follow(state) {
    const shown = SHOWN[state];
    const isFirst = state === "connecting" && this.#shown === "connecting";
    if (shown) this.#show(shown);
    else if (!isFirst) this.#quietTimer ||= setTimeout(() => this.#show("reconnecting"), QUIET_MS);
  }

  #show(shown) {
    clearTimeout(this.#quietTimer);
    this.#quietTimer = 0;
    if (shown !== this.#shown) this.#onState((this.#shown = shown));
  }
}
