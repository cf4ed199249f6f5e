/**
 * `<event-toasts>`: a card with what is under way for a user, each ingestion, question and sign-in a
 * row. For any page: no framework, no build step, its styles in a shadow.
 *
 * With `src` it connects by itself; without, a page that has its own `connect()` hands on what comes:
 * `paint(snapshot)`, `take(event)`. docs/how-to/show-toasts.md has the rest.
 */

import { element } from "./elements.js";
import { Announcer } from "./event-toasts/announcer.js";
import { Card } from "./event-toasts/card.js";
import { Ingestions } from "./event-toasts/ingestions.js";
import { Kept } from "./event-toasts/kept.js";
import { Notices } from "./event-toasts/notices.js";
import { sprite } from "./event-toasts/sprite.js";
import { connect } from "./eventstream.js";

const TICK_MS = 1000;
const STYLES = ["palette", "basics", "progress", "card", "rows"];

/** What is in the shadow, and what it shows. */
class Contents {
  ingestions;
  notices;
  card;

  constructor(host, shadow, goHome) {
    const { announcer, card } = this.#build(shadow, goHome);
    const user = host.getAttribute("user");
    const key = `eventstream.toasts:${host.getAttribute("src") ?? ""}:${user ?? ""}`;
    const kept = new Kept(key, user !== null);
    const emit = (name, detail) =>
      host.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
    this.card = card;
    this.ingestions = new Ingestions({ card, kept, announcer, emit });
    this.notices = new Notices({ card, kept, announcer, emit, host });
    this.notices.restore();
  }

  /** Leaves nothing of it in the page. */
  discard() {
    this.notices.discard();
  }

  #build(shadow, goHome) {
    const announcer = new Announcer();
    const dismiss = (row) => this.ingestions.dismiss(row) || this.notices.dismiss(row);
    const card = new Card({ dismiss, goHome });
    const links = STYLES.map(stylesheet);
    shadow.replaceChildren(...links, sprite(), card.node, announcer.node);
    Promise.all(links.map(settled)).then(() => card.styled());
    return { announcer, card };
  }
}

function stylesheet(name) {
  const href = new URL(`./event-toasts/${name}.css`, import.meta.url).href;
  return element("link", { rel: "stylesheet", href });
}

const settled = (link) =>
  new Promise((resolve) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve); // without its looks, but it says what it has to say
  });

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
    this.addEventListener("focusin", ({ relatedTarget }) => (this.#cameFrom = relatedTarget));
  }

  /** What `connect()` sends: a token, or a function that gives one. To be set before or after. */
  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    this.#connectSoon();
  }

  /** Takes the state, an answer of `GET /api/sources`. */
  paint({ sources }) {
    this.#contents.ingestions.paint(sources);
  }

  /** Takes one event, of any type; what it has no form for is passed over. */
  take(event) {
    this.#contents.ingestions.take(event);
    this.#contents.notices.take(event);
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
    this.#connectSoon();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    this.#stream?.close();
  }

  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    this.#made?.discard(); // another stream, or another user, who is not to see what there is
    this.#made = null;
    this.#connectSoon();
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
    const { ingestions } = this.#contents;
    const url = this.getAttribute("src");
    if (!url) return null;
    return connect({
      url,
      user: this.getAttribute("user") ?? undefined,
      token: this.#token,
      snapshotFirst: true,
      onSnapshot: ({ sources }) => ingestions.paint(sources),
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
