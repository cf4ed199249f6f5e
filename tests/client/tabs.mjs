/** Several tabs in one browser, before one journal; what happens next is drawn by a seeded generator. */

import { isAfter } from "../../web/static/eventstream.js";
import { settle } from "./world.mjs";

const encoder = new TextEncoder();

/** Numbers from 0 to 1 that a seed makes again (mulberry32). */
export function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const ORIGIN = "0-0";
const PAGE = 200; // entries in a response that has more than it may replay

/** The server's side: a user's events, and a stream from any cursor; shared/pages.py has its rule. */
export class Journal {
  ids = ["1000-0"];
  edge = ORIGIN; // the position before the oldest that is kept
  isDown = false;
  last = 1000;
  open = new Set();
  opened = [];
  most = 0; // streams at once
  refuse = null;

  get tip() {
    return this.ids.at(-1) ?? ORIGIN;
  }

  publish() {
    const id = `${++this.last}-0`;
    this.ids.push(id);
    for (const stream of this.open) stream.send(this.#frame(id));
    return id;
  }

  /** Keeps the newest alone. */
  trim(kept) {
    this.edge = this.ids.at(-kept - 1);
    this.ids = this.ids.slice(-kept);
  }

  /** Loses all; ids go on by time. */
  reset() {
    [this.ids, this.edge] = [[], ORIGIN];
    this.last += 10;
    this.breakAll();
  }

  breakAll() {
    for (const stream of [...this.open]) stream.end();
  }

  respond(url, { headers, signal }, tab) {
    if (this.isDown) throw new TypeError("Failed to fetch");
    const refused = this.refuse?.(headers, tab);
    if (refused) return refused;
    if (url.endsWith("sources")) return this.#state();
    const stream = new Stream(this, signal, tab);
    const cursor = headers["Last-Event-ID"] ?? "";
    this.opened.push(cursor);
    const { text, hasMore } = this.#beginning(cursor);
    stream.send(`retry: 500\n\n${text}`);
    if (hasMore) stream.end();
    return stream.response;
  }

  #state() {
    const body = { success: true, user_id: "alice", cursor: this.tip, sources: [] };
    return { status: 200, headers: new Headers(), json: async () => body };
  }

  #beginning(cursor) {
    if (!cursor) return { text: `id: ${this.tip}\n\n`, hasMore: false };
    const reason = this.#judge(cursor);
    const from = reason ? this.edge : cursor;
    const rest = this.ids.filter((id) => isAfter(id, from));
    const text = rest.slice(0, PAGE).map(this.#frame).join("");
    return { text: (reason && this.#truncation(reason)) + text, hasMore: rest.length > PAGE };
  }

  #judge(cursor) {
    if (cursor === this.edge || this.ids.includes(cursor)) return "";
    return this.ids.length && isAfter(this.edge, cursor) ? "trimmed" : "journal_reset";
  }

  #truncation(reason) {
    const event = { type: "backlog.truncated", payload: { reason, cursor: this.edge } };
    return `data: ${JSON.stringify(event)}\n\nid: ${this.edge}\n\n`;
  }

  #frame = (id) => `id: ${id}\ndata: ${JSON.stringify({ id, type: "test.event", payload: {} })}\n\n`;
}

/** A response that is read while the journal writes on; bytes arrive when it is their turn. */
class Stream {
  #arrived = [];
  #waiting = null;
  #journal;

  constructor(journal, signal, tab) {
    this.#journal = journal;
    this.tab = tab;
    journal.open.add(this);
    journal.most = Math.max(journal.most, journal.open.size);
    signal.addEventListener("abort", () => journal.open.delete(this));
    const read = () =>
      new Promise((resolve) => {
        this.#waiting = resolve;
        this.#match();
      });
    const headers = new Headers({ "content-type": "text/event-stream" });
    this.response = { status: 200, headers, body: { getReader: () => ({ read }) } };
  }

  send(text) {
    this.#arrive({ done: false, value: encoder.encode(text) });
  }

  end() {
    this.#journal.open.delete(this);
    this.#arrive({ done: true });
  }

  #arrive(part) {
    this.tab.browser.later(this, this.tab, () => {
      this.#arrived.push(part);
      this.#match();
    });
  }

  #match() {
    if (!this.#waiting || !this.#arrived.length) return;
    const resolve = this.#waiting;
    this.#waiting = null;
    resolve(this.#arrived.shift());
  }
}

/** The locks of the browser: one holder a name, the others in a row. */
class Locks {
  holder = null;
  #row = [];

  request(name, { signal, steal, tab }, use) {
    return new Promise((resolve, reject) => {
      const wish = { tab, use, resolve, reject };
      const aborted = () => {
        this.#row = this.#row.filter((each) => each !== wish);
        if (this.holder !== wish) reject(new DOMException("given up", "AbortError"));
      };
      if (signal?.aborted) return aborted();
      signal?.addEventListener("abort", aborted);
      if (steal) {
        this.holder?.reject(new DOMException("stolen", "AbortError"));
        this.holder = null;
        this.#row.unshift(wish);
      } else this.#row.push(wish);
      this.grant();
    });
  }

  /** What a browser does for a tab that is gone. */
  drop(tab) {
    this.#row = this.#row.filter((wish) => wish.tab !== tab);
    if (this.holder?.tab === tab) this.holder = null;
    this.grant();
  }

  grant() {
    if (this.holder || !this.#row.length) return;
    const wish = (this.holder = this.#row.shift());
    setImmediate(async () => {
      if (this.holder !== wish) return;
      try {
        wish.resolve(await wish.use());
      } catch (error) {
        wish.reject(error);
      }
      if (this.holder === wish) this.holder = null;
      this.grant();
    });
  }
}

/** One tab: the client's world. What it says and hears goes through the browser's own disorder. */
class Tab {
  window = new EventTarget();
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  isAlive = true;
  isFrozen = false; // neither timers nor messages nor bytes come through
  timers = new Map();
  reported = [];

  constructor(browser) {
    this.browser = browser;
    this.now = () => browser.time;
    this.random = browser.random;
    this.report = (error) => this.reported.push(error);
    this.storage = () => ({ getItem: () => null, setItem: () => {} });
    const request = (name, how, use) => browser.locks.request(name, { ...how, tab: this }, use);
    this.locks = { request };
  }

  setTimeout = (wake, ms) => {
    const timer = Symbol();
    this.timers.set(timer, { at: this.browser.time + ms, wake });
    return timer;
  };
  clearTimeout = (timer) => this.timers.delete(timer);
  channel = () => this.browser.join(this);
  fetch = (url, options) => {
    new Headers(options.headers); // throws, as the client's own does
    return this.#respond(url, options);
  };

  async #respond(url, options) {
    return this.browser.journal.respond(url, options, this);
  }

  kill() {
    this.isAlive = false;
    this.timers.clear();
    this.browser.forget(this);
  }
}

export class Browser {
  time = 1_000_000;
  journal = new Journal();
  locks = new Locks();
  tabs = [];
  isDisorderly = false;
  #channels = new Map(); // of each tab that takes part
  #rows = []; // of what is under way, one row a sender and receiver

  constructor(seed = 1) {
    this.random = generator(seed);
  }

  tab() {
    const tab = new Tab(this);
    this.tabs.push(tab);
    return tab;
  }

  get leader() {
    return this.locks.holder?.tab;
  }

  join(tab) {
    const channel = {
      onmessage: null,
      postMessage: (message) => this.#spread(channel, tab, structuredClone(message)),
      close: () => this.#channels.delete(channel),
    };
    this.#channels.set(channel, tab);
    return channel;
  }

  #spread(from, sender, message) {
    if (!sender.isAlive) return;
    for (const [channel, tab] of this.#channels) {
      if (channel === from) continue;
      this.later(sender, tab, () => {
        if (this.#channels.has(channel)) channel.onmessage({ data: structuredClone(message) });
      });
    }
  }

  /** Something reaches a tab: at once, or when it is its turn. */
  later(sender, tab, act) {
    let row = this.#rows.find((each) => each.sender === sender && each.tab === tab);
    if (!row) this.#rows.push((row = { sender, tab, acts: [] }));
    row.acts.push(act);
    if (!this.isDisorderly) queueMicrotask(() => this.#arrive(row));
  }

  #arrive(row) {
    if (row.tab.isFrozen) return; // it stays under way
    const act = row.acts.shift();
    if (!row.acts.length) this.#rows = this.#rows.filter((each) => each !== row);
    if (row.tab.isAlive) act?.();
  }

  /** One thing that is under way arrives, of any; says whether there was one. */
  step() {
    const rows = this.#rows.filter(({ tab }) => !tab.isFrozen);
    if (rows.length) this.#arrive(rows[Math.floor(this.random() * rows.length)]);
    return rows.length > 0;
  }

  /** A tab is gone: what it has posted reaches some, and others not. */
  forget(gone) {
    for (const row of this.#rows) {
      if (row.sender === gone) row.acts.length = Math.floor(this.random() * (row.acts.length + 1));
    }
    this.#rows = this.#rows.filter(({ tab, acts }) => tab !== gone && acts.length);
    for (const [channel, tab] of this.#channels) if (tab === gone) this.#channels.delete(channel);
    for (const stream of [...this.journal.open]) if (stream.tab === gone) stream.end();
    this.locks.drop(gone);
  }

  /** All that is under way arrives, in any order. */
  async settle() {
    do await settle();
    while (this.step());
  }

  /** Time goes by, and wakes who waits for it. */
  async advance(ms) {
    const until = this.time + ms;
    for (;;) {
      await this.settle();
      const due = this.tabs
        .filter(({ isFrozen }) => !isFrozen)
        .flatMap(({ timers }) => [...timers].map(([timer, { at, wake }]) => ({ timers, timer, at, wake })))
        .filter(({ at }) => at <= until)
        .sort((a, b) => a.at - b.at);
      if (!due.length) break;
      const [{ timers, timer, at, wake }] = due;
      timers.delete(timer);
      this.time = Math.max(this.time, at);
      wake();
    }
    this.time = until;
  }
}
