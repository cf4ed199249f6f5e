/** What is in the shadow, and what it shows: of one user, in one place of storage. */

import { element } from "../elements.js";
import { Announcer } from "./announcer.js";
import { Card } from "./card.js";
import { Ingestions } from "./ingestions.js";
import { Kept } from "./kept.js";
import { Notices } from "./notices.js";
import { sprite } from "./sprite.js";

const STYLES = ["palette", "basics", "progress", "card", "rows"];
const TRUNCATED = "backlog.truncated";

export class Contents {
  ingestions;
  notices;
  card;
  #kept;

  /**
   * @param {HTMLElement} host
   * @param {ShadowRoot} shadow whose children it takes the place of
   * @param {() => void} goHome where the keyboard's focus goes when no row is left
   */
  constructor(host, shadow, goHome) {
    const { announcer, card } = this.#build(shadow, goHome);
    const user = host.getAttribute("user");
    const kept = new Kept(`eventstream.toasts:${host.getAttribute("src") ?? ""}:${user ?? ""}`, user);
    const emit = (name, detail) =>
      host.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
    this.card = card;
    this.#kept = kept;
    this.ingestions = new Ingestions({ card, kept, announcer, emit });
    this.notices = new Notices({ card, kept, announcer, emit, host });
  }

  /** Whether it may show what is this user's. */
  isFor(userId) {
    return this.#kept.isFor(userId);
  }

  /** Takes the state. The first one says whose it is, and so what may be shown again. */
  paint({ user_id: userId, sources }, truncation) {
    if (this.#kept.open(userId)) this.notices.restore();
    if (truncation) this.notices.doubt();
    this.ingestions.paint(sources);
  }

  take(event) {
    if (event.type === TRUNCATED) this.notices.doubt();
    this.ingestions.take(event);
    this.notices.take(event);
  }

  /** Another tab has written, or the user has signed out there. */
  follow(storageEvent) {
    const turn = this.#kept.follow(storageEvent);
    if (!turn) return;
    this.ingestions.dropDismissed(turn.gone);
    if (turn.isEmptied) this.notices.dropAll();
    else this.notices.dropOver(turn.gone);
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
  return element("link", { rel: "stylesheet", href: new URL(`./${name}.css`, import.meta.url).href });
}

const settled = (link) =>
  new Promise((resolve) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve); // without its looks, but it says what it has to say
  });
