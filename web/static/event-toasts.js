/**
 * `<event-toasts>`: a card with what is under way for a user, each ingestion, question and sign-in a
 * row. For any page: no framework, no build step, its styles in a shadow.
 *
 * With `src` it connects by itself; without, a page that has its own `connect()` hands on what comes:
 * `paint(snapshot, truncation)`, `take(event)`. docs/how-to/show-toasts.md has the rest.
 */

import { Contents } from "./event-toasts/contents.js";
import { connect } from "./eventstream.js";

const TICK_MS = 1000;

export class EventToasts extends HTMLElement {
  static observedAttributes = ["src", "user"];
  #shadow = this.attachShadow({ mode: "open" });
  #made = null;
  #stream = null;
  #token;
  #timer = 0;
  #willConnect = false;
  #cameFrom = null;

  constructor() {
    super();
    this.addEventListener("focusin", ({ relatedTarget }) => {
      if (!this.contains(relatedTarget)) this.#cameFrom = relatedTarget;
    });
  }

  /** What `connect()` sends: a token, or a function that gives one. To be set before or after. */
  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    this.#connectSoon();
  }

  /**
   * Takes the state, an answer of `GET /api/sources`. Its `user_id` says whose it is: what was kept
   * is shown again to the same user only.
   * @param {object|null} truncation after which it was fetched
   */
  paint(snapshot, truncation = null) {
    if (!this.#contents.isFor(snapshot.user_id)) this.#discard();
    this.#contents.paint(snapshot, truncation);
  }

  /** Takes one event, of any type; what it has no form for is passed over. */
  take(event) {
    this.#contents.take(event);
  }

  /**
   * Shows an upload that the page has under way, at each of its steps; the run takes over its row.
   * @param {object} upload the same object each time
   * @param {string} upload.name
   * @param {number} upload.size in bytes
   * @param {number} upload.sent of them
   * @param {"waiting"|"uploading"|"handing over"|"accepted"|"failed"|"aborted"} upload.phase
   * @param {string|null} upload.sourceId what the server answered
   * @param {string|null} upload.runId
   * @param {{message: string, passing: boolean}|null} upload.error `passing`: try again
   */
  showUpload(upload) {
    this.#contents.ingestions.showUpload(upload);
  }

  /** Asks an approval's question again: the answer, for a reason in plain words, was of no use. */
  askAgain(event, reason) {
    this.#contents.notices.askAgain(event, reason);
  }

  connectedCallback() {
    if (Object.hasOwn(this, "token")) this.#adoptToken();
    this.#timer = setInterval(() => this.#contents.card.tick(), TICK_MS);
    addEventListener("storage", this.#onStorage);
    this.#connectSoon();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    removeEventListener("storage", this.#onStorage);
    this.#stream?.close();
  }

  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    this.#discard();
    this.#connectSoon();
  }

  #onStorage = (event) => this.#made?.follow(event);

  // Another stream, or another user, who is not to see what there is.
  #discard() {
    this.#made?.discard();
    this.#made = null;
  }

  get #contents() {
    this.#made ??= new Contents(this, this.#shadow, () => this.#goHome());
    return this.#made;
  }

  // It was set before the element was defined, past the accessor.
  #adoptToken() {
    const { token } = this;
    delete this.token;
    this.token = token;
  }

  // Soon: attributes and properties come one by one.
  #connectSoon() {
    if (this.#willConnect) return;
    this.#willConnect = true;
    queueMicrotask(() => {
      this.#willConnect = false;
      this.#stream?.close();
      this.#stream = this.isConnected ? this.#connect() : null;
    });
  }

  #connect() {
    const url = this.getAttribute("src");
    if (!url) return null;
    return connect({
      url,
      user: this.getAttribute("user") ?? undefined,
      token: this.#token,
      snapshotFirst: true,
      onSnapshot: (snapshot, truncation) => this.paint(snapshot, truncation),
      onEvent: (event) => this.take(event),
      onState: (detail) => this.dispatchEvent(new CustomEvent("state", { detail })),
    });
  }

  #goHome() {
    const from = this.#cameFrom?.isConnected ? this.#cameFrom : document.querySelector("main");
    from?.focus({ preventScroll: true });
  }
}

customElements.define("event-toasts", EventToasts);
