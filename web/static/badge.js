/** The badge: where the client is, until when it waits, and why. Short reconnects are passed over. */

import { byId, setText, setTitle } from "/static/elements.js";

const QUIET_MS = 1000; // what is over sooner is nobody's business
const TICK_MS = 250;

const WHY_WAITING = {
  ended: "the server ended the stream",
  token_expired: "the sign-in had run out",
  push_disabled: "live updates are switched off",
  unreachable: "the server can't be reached",
  silent: "nothing was heard for too long",
  not_a_stream: "something else answered",
  refused: "the server refused for now",
  no_token: "there is no sign-in to send",
  offline: "the network was away",
};
const WHY_STOPPED = {
  unauthorized: "sign in and load the page again",
  refused: "the server refused",
  not_a_stream: "something else answered",
  closed: "it was closed",
  failed: "something went wrong, load the page again",
};

/**
 * What the badge says.
 * @param {object} state of the client
 * @param {{now: number, isFirst: boolean, isOnline: boolean}} around
 * @returns {{look: string, text: string, why: string}}
 */
export function badgeWords(state, { now, isFirst, isOnline }) {
  if (state.state === "stopped") return stopped(state);
  if (!isOnline) return { look: "waiting", text: "No network", why: "goes on when it is back" };
  if (state.state === "live") return { look: "live", text: "Live", why: "" };
  if (state.state === "catching_up") return { look: "catching_up", text: "Catching up", why: "" };
  if (state.state === "waiting") return waiting(state, now);
  if (isFirst) return { look: "connecting", text: "Connecting", why: "" };
  return { look: "waiting", text: "Reconnecting", why: "" };
}

function waiting(state, now) {
  const seconds = Math.ceil((state.until - now) / 1000);
  const text = seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting";
  return { look: "waiting", text, why: why(state, WHY_WAITING) };
}

function stopped(state) {
  const text = state.reason === "unauthorized" ? "Signed out" : "Not connected";
  return { look: "stopped", text, why: why(state, WHY_STOPPED) };
}

// The server's own sentence on a refusal, where it gave one; else the client repeats the reason.
function why({ reason, message, status }, words) {
  if (status && message && message !== reason) return message;
  return words[reason] ?? reason;
}

// Aloud: not each second, and the reason only where nothing more will come.
const spoken = ({ look, text, why }) =>
  look === "stopped" ? `${text}: ${why}` : text.replace(/ in \d+ s$/, "");

export class Badge {
  #node = byId("badge");
  #text = this.#node.querySelector(".badge-text");
  #why = this.#node.querySelector(".badge-why");
  #spoken = byId("badge-spoken");
  #state = { state: "connecting" };
  #isFirst = true;
  #quietTimer = 0;
  #ticks = 0;

  constructor() {
    for (const turn of ["online", "offline"]) addEventListener(turn, () => this.#turn());
    this.#show();
  }

  /** Takes a state of the client's. */
  follow(state) {
    this.#state = state;
    this.#turn();
  }

  #turn() {
    const { state } = this.#state;
    if (state === "live") this.#isFirst = false;
    if (state === "stopped" || (state === "live" && navigator.onLine)) {
      this.#quiet();
      this.#show();
    } else if (this.#ticks) {
      this.#show();
    } else {
      this.#quietTimer ||= setTimeout(() => this.#expose(), QUIET_MS);
    }
  }

  #expose() {
    this.#ticks = setInterval(() => this.#show(), TICK_MS); // counts down
    this.#show();
  }

  #quiet() {
    clearTimeout(this.#quietTimer);
    clearInterval(this.#ticks);
    this.#quietTimer = this.#ticks = 0;
  }

  #show() {
    const around = { now: Date.now(), isFirst: this.#isFirst, isOnline: navigator.onLine };
    const words = badgeWords(this.#state, around);
    const { look, text, why } = words;
    this.#node.dataset.state = look;
    setText(this.#text, text);
    setText(this.#why, why);
    setTitle(this.#node, why);
    setText(this.#spoken, spoken(words));
  }
}
