/**
 * A client for celery-eventstream: a user's events, or those of one answer, each once and in order.
 *
 * No dependencies, no build step. `connect()` watches a user's stream, `resumeMessage()` an answer;
 * docs/how-to/use-the-client.md has them with examples. Both read by `fetch`, so that they can send
 * a token and see a refusal's status, which EventSource can't.
 *
 * - One record is handled at a time. A slow handler costs no memory: the server's journal is the
 *   buffer.
 * - The cursor moves after the handler has run, and only forward; but for `backlog.truncated`, since
 *   ids may start anew after a reset.
 * - No state is silent: each wait has its reason and its end, and so has a stop.
 * - The tabs of a user have one connection among them, where the browser has Web Locks and
 *   BroadcastChannel; SharedStream says how.
 */

const KEEPALIVE_MS = 15_000; // SSE_KEEPALIVE_SECONDS of the server
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1; // a browser's timer of more is over at once
const LEVEL_AFTER_MS = 100; // as long without a word, and the replay is over
const ANSWER_LEVEL_MS = 1000; // an answer is replayed in less, and its events tell no time
const PASSING = new Set([408, 425, 429]); // and all from 500 on: worth another try
const ENDS = new Set(["end", "error"]); // of an answer
const STATED = "source.ingest."; // the events that `GET /api/sources` sums up
const TRUNCATED = "backlog.truncated";
const ORIGIN = "0-0"; // the position before the first event
const KEPT_RECORDS = 500; // of what was heard last, for tabs that have missed some
const PAGE = 100; // records that wait in a tab, and that it is given at a time
const ANSWER_MS = 5000; // in which a leader that lives has answered
const ASK_AGAIN_MS = 1000;
const OF_THE_TAB = new Set(["unauthorized", "no_token"]); // another's token may be good

/** Whether an id lies after a cursor; anything lies after no cursor. Both kinds of id will do. */
export function isAfter(id, cursor) {
  if (!cursor) return true;
  const [ms, sequence = 0] = id.split("-").map(Number);
  const [floorMs, floorSequence = 0] = cursor.split("-").map(Number);
  return ms > floorMs || (ms === floorMs && sequence > floorSequence);
}

/**
 * Parses an event stream by the rules of the HTML standard (section 9.2.6), however it is cut.
 *
 * What it makes: `{ data, id, hasId, type }` for a record (`data` is null where it only moves the
 * id, `hasId` false where `id` is an earlier record's), `{ retryMs }`, and `{ comment }`.
 */
export class EventStreamParser {
  #decoder = new TextDecoder(); // drops a byte order mark, keeps the half of a character
  #line = "";
  #afterReturn = false;
  #data = null;
  #type = "";
  #id = "";
  #hasId = false;

  /**
   * Takes the next bytes.
   * @param {Uint8Array} bytes
   * @returns {object[]} what is complete by now
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#afterReturn && text[0] === "\n") text = text.slice(1);
    this.#afterReturn = text ? text.endsWith("\r") : false;
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    return lines.map((line) => this.#take(line)).filter(Boolean);
  }

  #take(line) {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (colon === 0) return { comment: value };
    if (name === "retry" && /^[0-9]+$/.test(value)) return { retryMs: Number(value) };
    if (name === "data") this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) [this.#id, this.#hasId] = [value, true];
    return null;
  }

  #dispatch() {
    const record = { data: this.#data, id: this.#id, hasId: this.#hasId, type: this.#type };
    this.#data = null;
    this.#type = "";
    this.#hasId = false;
    return record.data === null && !record.hasId ? null : record;
  }
}

/** A position as the server knows it: without what SharedStream has put to it. */
const plain = (position) => position.split("@")[0];

/** The stream has stopped and does not come back: `reason`, and a refusal's `status` and `code`. */
export class StreamStopped extends Error {
  name = "StreamStopped";

  constructor(reason, { status = 0, code = "", message = "" } = {}) {
    super(message || reason);
    Object.assign(this, { reason, status, code });
  }
}

/** It broke, or was refused for now. `waitMs`: what the server said; `atOnce`: no need to wait. */
class Interruption extends Error {
  constructor(reason, { status = 0, code = "", message = "", waitMs = 0, atOnce = false } = {}) {
    super(message || reason);
    Object.assign(this, { reason, status, code, waitMs, atOnce });
  }
}

/** `Retry-After` in milliseconds: seconds, or a date (RFC 9110, section 10.2.3). */
function retryAfterMs(header, now) {
  if (!header) return 0;
  const ms = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now;
  return ms > 0 ? ms : 0;
}

async function refusal(response, now) {
  const body = await response.json().catch(() => null);
  const { status } = response;
  const waitMs = retryAfterMs(response.headers.get("retry-after"), now);
  const said = { status, code: body?.error ?? "", message: body?.message ?? "", waitMs };
  if (status === 401) return new StreamStopped("unauthorized", said);
  if (PASSING.has(status) || status >= 500) return new Interruption("refused", said);
  if (status < 400) return new StreamStopped("not_a_stream", said); // 204: don't come back
  return new StreamStopped("refused", said);
}

/** What the browser gives; tests hand in their own. */
const browser = () => ({
  fetch(url, options) {
    new Request(url, options); // throws at once what fetch would be tried with in vain
    return fetch(url, options);
  },
  now: () => Date.now(),
  random: () => Math.random(),
  setTimeout: (wake, ms) => setTimeout(wake, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  report: (error) => reportError(error),
  storage: () => localStorage,
  window: globalThis.window,
  document: globalThis.document,
  locks: globalThis.navigator?.locks, // over HTTPS and on localhost only
  channel: globalThis.BroadcastChannel && ((name) => new BroadcastChannel(name)),
});

/** What a stop says of an error that is none of the network's. */
const failed = (error) => ({ reason: "failed", message: String(error?.message ?? error) });

/** Runs a function of the page's own: its fault is reported, and stops no stream. */
async function call(world, callback, ...values) {
  try {
    await callback?.(...values);
  } catch (error) {
    world.report(error);
  }
}

/** Keeps one stream open, from the last record that was taken, until it is over or stopped. */
class Connection {
  #url;
  #options;
  #world;
  #idleMs;
  #position;
  #take;
  #heardBytes;
  #isOver;
  #levelMs;
  #closed = false;
  #failures = 0; // since something was last heard
  #retryMs = 0;
  #ending = "ended"; // the server's word on why it ends a stream
  #attempt = new AbortController();
  #waiting = null;
  #heardAt = 0; // since when the network is being waited for
  #openedAt = 0;
  #levelTimer = 0;
  #level = true;

  /**
   * @param {string} url
   * @param {object} options what connect() and resumeMessage() were given
   * @param {object} world
   * @param {object} parts
   * @param {string} parts.position where to go on from
   * @param {(record: {prev: string, id: string|null, event: object|null}) => Promise<string|null>} parts.take
   *   gets each record after the position `prev`, once; says the new one, or null for the old one
   * @param {() => void} [parts.heard] called when what has arrived at once was taken
   * @param {() => boolean|Promise<boolean>} [parts.isOver] whether a response that has ended was the last; may ask
   * @param {number} [parts.levelMs] how long after its opening a stream is live for certain
   */
  constructor(url, options, world, parts) {
    const { position, take, heard = () => {}, isOver = () => false, levelMs = Infinity } = parts;
    this.#url = url;
    this.#options = options;
    this.#world = world;
    this.#idleMs = 3 * (options.keepaliveMs ?? KEEPALIVE_MS);
    this.#position = position;
    this.#take = take;
    this.#heardBytes = heard;
    this.#isOver = isOver;
    this.#levelMs = levelMs;
  }

  /**
   * Stays connected; rejects with the StreamStopped that ends it.
   * @param {(() => Promise<string|null>)|null} first done before, with equal patience; says where to
   *   go on from, or null: no stream is wanted
   */
  async run(first = null) {
    const { window, document } = this.#world;
    const online = () => this.#hurry("offline", 0); // a socket from before is dead, and silent
    const visible = () => document.visibilityState === "visible" && this.hurry();
    window?.addEventListener("online", online);
    document?.addEventListener("visibilitychange", visible);
    try {
      while (!this.#closed) {
        const pause = await this.#try(async () => {
          if (first) this.#position = await first();
          first = null;
          if (this.#position !== null) await this.#connect();
        });
        if (this.#closed || !pause) return;
        await this.#wait(pause);
      }
    } catch (error) {
      if (!(error instanceof StreamStopped)) throw error;
      if (this.#closed) return;
      const { reason, status, code, message } = error;
      this.close({ reason, status, code, message });
      throw error;
    } finally {
      window?.removeEventListener("online", online);
      document?.removeEventListener("visibilitychange", visible);
    }
  }

  get isClosed() {
    return this.#closed;
  }

  /** Ends it, and says so; what the handler is at is let finish. */
  close(why = { reason: "closed" }) {
    this.say("stopped", why);
    this.end();
  }

  /** Ends it without a word. */
  end() {
    this.#closed = true;
    this.#attempt.abort();
    this.#waiting?.end();
  }

  /** Somebody looks: it waits no longer, and a network that was silent for too long is dead. */
  hurry() {
    this.#hurry("silent", this.#idleMs);
  }

  /** Says where it is. */
  say(state, why = {}) {
    if (!this.#closed) call(this.#world, this.#options.onState, { state, ...why });
  }

  /** A JSON body, asked for with the token. */
  async json(url) {
    const response = await this.#request(url, { Accept: "application/json" });
    return this.#heard(response.json());
  }

  /** The response to a request with the token; others than 200 are thrown. */
  async #request(url, headers) {
    const { token, credentials = "same-origin" } = this.#options;
    const { signal } = this.#attempt;
    for (let refused = false; ; refused = true) {
      const bearer = typeof token === "function" ? await this.#askToken(token, refused) : token;
      const all = bearer ? { ...headers, Authorization: `Bearer ${bearer}` } : headers;
      const asked = this.#world.fetch(url, { headers: all, signal, credentials, cache: "no-store" });
      const response = await this.#heard(asked);
      if (response.status === 200) return response;
      const once = response.status === 401 && typeof token === "function" && !refused;
      if (!once) throw await this.#heard(refusal(response, this.#world.now()));
      response.body?.cancel().catch(() => {});
    }
  }

  /** A function that hangs has none, as one that fails. */
  #askToken(token, refused) {
    const given = new Promise((give) => give(token({ refused })));
    return this.#heard(given, "no_token", "no_token");
  }

  /** One attempt. Returns what to wait for before the next, or nothing where it was the last. */
  async #try(attempt) {
    this.#attempt = new AbortController();
    this.say("connecting");
    try {
      await attempt();
      if (this.#closed || this.#position === null || (await this.#isOver())) return null;
      return { reason: this.#ending, ms: this.#nextMs(), firm: false };
    } catch (error) {
      if (error instanceof Interruption) return this.#pauseAfter(error);
      throw error;
    } finally {
      this.#world.clearTimeout(this.#levelTimer);
      this.#attempt.abort(); // a socket that is silent, or of no use any more
    }
  }

  #pauseAfter({ reason, message, status, code, waitMs, atOnce }) {
    const nextMs = atOnce ? 0 : this.#nextMs();
    const ms = waitMs ? waitMs + this.#world.random() * FIRST_WAIT_MS : nextMs;
    return { reason, message, status, code, ms, firm: waitMs > 0 };
  }

  /** What the server said at first; then full jitter: pages don't come back in the same second. */
  #nextMs() {
    const failures = this.#failures++;
    if (failures === 0 && this.#retryMs) return this.#retryMs;
    return this.#world.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures);
  }

  async #wait({ ms: toldMs, firm, ...why }) {
    const { setTimeout, clearTimeout, now } = this.#world;
    const ms = Math.min(toldMs, LONGEST_TIMER_MS);
    let timer;
    const over = new Promise((end) => {
      timer = setTimeout(end, ms);
      this.#waiting = { end, firm };
    });
    this.say("waiting", { until: now() + ms, ...why });
    await over;
    clearTimeout(timer);
    this.#waiting = null;
  }

  /** The network or the user is back. What a refusal told it to wait, it waits all the same. */
  #hurry(reason, allowedMs) {
    if (this.#waiting) {
      if (!this.#waiting.firm) this.#waiting.end();
      return;
    }
    const silentMs = this.#heardAt ? this.#world.now() - this.#heardAt : 0;
    const isLost = silentMs > allowedMs; // timers sleep with a tab, and so does the watchdog
    if (isLost) this.#attempt.abort(new Interruption(reason, { atOnce: true }));
  }

  /** Waits for the network, but not for ever: a half-open socket looks healthy and says nothing. */
  async #heard(promise, broken = "unreachable", silent = "silent") {
    const { setTimeout, clearTimeout, now } = this.#world;
    const { signal } = this.#attempt;
    this.#heardAt = now();
    let timer, cut;
    const silence = new Promise((_, reject) => {
      const give = () => reject(new Interruption(silent, { message: "no answer" }));
      timer = setTimeout(give, this.#idleMs);
      cut = () => reject(signal.reason);
      signal.addEventListener("abort", cut);
      if (signal.aborted) cut();
    });
    try {
      return await Promise.race([promise, silence]);
    } catch (error) {
      if (error instanceof Interruption) throw error;
      throw new Interruption(broken, { message: failed(error).message });
    } finally {
      this.#heardAt = 0;
      clearTimeout(timer);
      signal.removeEventListener("abort", cut);
    }
  }

  async #connect() {
    const from = plain(this.#position);
    const headers = { Accept: "text/event-stream", ...(from && { "Last-Event-ID": from }) };
    const response = await this.#request(this.#url, headers);
    const kind = response.headers.get("content-type") ?? "";
    // A captive portal's or a proxy's own page: it passes.
    if (!kind.startsWith("text/event-stream")) throw new Interruption("not_a_stream");
    this.#openedAt = Date.parse(response.headers.get("date")) || this.#world.now();
    this.#ending = "ended";
    this.#level = !from;
    this.say(from ? "catching_up" : "live");
    this.#listenForQuiet();
    await this.#read(response.body.getReader());
  }

  async #read(reader) {
    const parser = new EventStreamParser();
    for (;;) {
      const { done, value } = await this.#heard(reader.read());
      if (done) return;
      this.#failures = 0;
      for (const record of parser.push(value)) {
        if (this.#closed) return;
        await this.#receive(record);
      }
      this.#heardBytes();
    }
  }

  async #receive({ retryMs, comment, data, id, hasId }) {
    if (retryMs !== undefined) this.#retryMs = retryMs;
    else if (comment !== undefined) this.#hear(comment);
    else if (!hasId || !id) await this.#hand(null, data);
    else if (isAfter(id, this.#position)) await this.#hand(id, data);
  }

  #hear(comment) {
    if (["token_expired", "push_disabled"].includes(comment)) this.#ending = comment;
  }

  async #hand(id, data) {
    this.#world.clearTimeout(this.#levelTimer);
    const prev = this.#position;
    this.#position = (await this.#take({ prev, id, event: this.#parse(data) })) ?? prev;
    if (this.#isLive(id)) this.#becomeLevel();
    this.#listenForQuiet();
  }

  #parse(data) {
    try {
      return JSON.parse(data);
    } catch (error) {
      this.#world.report(error);
      return null;
    }
  }

  // What happened after the opening is live. The response's date has whole seconds only.
  #isLive(id) {
    if (this.#world.now() > this.#openedAt + this.#levelMs) return true;
    return id !== null && Number(id.split("-")[0]) > this.#openedAt + 1000;
  }

  #becomeLevel() {
    if (this.#level) return;
    this.#level = true;
    this.say("live");
  }

  // A moment of quiet is the other sign that the replay is over.
  #listenForQuiet() {
    if (this.#level) return;
    const { setTimeout } = this.#world;
    this.#levelTimer = setTimeout(() => this.#becomeLevel(), LEVEL_AFTER_MS);
  }
}

/** A cursor in localStorage, one a user and stream, shared by the user's tabs. */
class KeptCursor {
  #world;
  #key;

  constructor(url, user, world) {
    this.#world = world;
    this.#key = user === undefined ? "" : `eventstream.cursor:${url}:${user}`;
  }

  read() {
    return this.#access((storage) => storage.getItem(this.#key)) ?? "";
  }

  /** Moves it forward; elsewhere only from `replaced`, since another tab may be further already. */
  write(cursor, replaced) {
    const kept = this.read();
    if (!isAfter(cursor, kept) && kept !== replaced) return;
    this.#access((storage) => storage.setItem(this.#key, cursor));
  }

  // Storage may be forbidden or full: the stream works without, from its cursor in memory.
  #access(use) {
    if (!this.#key) return null;
    try {
      const storage = this.#world.storage();
      return storage && use(storage); // a WebView has null
    } catch (error) {
      if (error instanceof DOMException) return null;
      throw error;
    }
  }
}

/**
 * A record as a link from the position that it was read at. A truncation leads to its cursor; that of a
 * reset, mostly 0-0, is told from an earlier life's by where it was come from.
 */
function linked({ prev, id, event }) {
  if (event?.type !== TRUNCATED) return { prev, id, event };
  const { reason, cursor } = event.payload;
  return { prev, id: reason === "trimmed" ? cursor : `${cursor ?? ""}@${prev}`, event };
}

/** The records that were heard last, each linked to the one before. */
class RecentRecords {
  #records = [];
  #start;

  constructor(position) {
    this.#start = position;
  }

  get end() {
    return this.#records.at(-1)?.id ?? this.#start;
  }

  /** Keeps a record, unless it is an earlier one; after a gap it begins anew, and with each life. */
  add(record) {
    const isNext = record.prev === this.end;
    if (!isNext && !isAfter(record.id, this.end)) return;
    if (!isNext || record.id.includes("@")) [this.#records, this.#start] = [[], record.prev];
    this.#records.push(record);
    if (this.#records.length > KEPT_RECORDS) this.#start = this.#records.shift().id;
  }

  /** A page of what follows a position; null where it is not known what does. */
  after(position) {
    const next = this.#records.findLastIndex(({ id }) => id === position) + 1;
    return next || position === this.#start ? this.#records.slice(next, next + PAGE) : null;
  }
}

/**
 * A tab's part in the one connection of all its user's tabs. The one that holds the lock leads: it
 * reads the stream and posts what it reads. Each tab, the leader's too, handles by itself.
 *
 * - A record has `prev`, the position from which it was read. With `reach`, the id of the last record
 *   that a tab has taken, the next one is that whose `prev` is `reach`, and no other. So no order of
 *   posts, no loss or repetition, and no second leader for a moment can lose or double an event. That
 *   ids begin anew is a record too, which leads from the last of the old ones to the new beginning.
 * - Each post says how far the leader has come, and it posts with each keepalive: a post, a question or
 *   an answer that was lost with a tab is noticed at the next one.
 * - It answers from what it heard last. Of a position that it does not know, only the server can say
 *   what follows: the tab reads for itself, until it comes upon what the others have.
 * - A handler that is slow or hangs holds nobody up: a page of records waits for it, no more.
 * - Whose token is refused, or not to be had, leaves the lead to another.
 * - A page that is put away leaves. One that hangs is told by its silence, and the lock is stolen.
 */
class SharedStream {
  #name;
  #world;
  #silenceMs;
  #open;
  #tab;
  #reach;
  #recent;
  #queue = []; // of this tab's handler
  #isHandling = false;
  #state = null; // of the leader's connection
  #at = ""; // how far a leader has come
  #far = null; // the position of this tab that the leader does not know
  #own = null; // the connection of this tab while it reads for itself
  #asked = null;
  #askedAt = 0;
  #watchdog = 0;
  #channel = null; // while it takes part
  #request = null; // for the lock
  #isStealing = false;
  #leading = null; // the connection, where this tab leads
  #unsent = [];
  #tokenless = 0; // times in a row that it had no token
  #restMs = 0;
  #rest = 0;
  #wake = null;
  #listening = new AbortController();
  #fail;

  /**
   * @param {string} name the lock's and the channel's
   * @param {object} world
   * @param {object} parts
   * @param {string} parts.position where this tab is
   * @param {number} parts.silenceMs how long a leader may say nothing
   * @param {(parts: object) => Connection} parts.open makes a connection
   * @param {object} parts.tab `handle(record)`, one at a time, and `say(state)`
   */
  constructor(name, world, { position, silenceMs, open, tab }) {
    this.#name = name;
    this.#world = world;
    this.#silenceMs = silenceMs;
    this.#open = open;
    this.#tab = tab;
    this.#reach = this.#checked(position);
    this.#recent = new RecentRecords(this.#reach);
  }

  // No record follows on what is no id.
  #checked(position) {
    if (!position || /^\d+(-\d+)?$/.test(position)) return position;
    const payload = { reason: "malformed_cursor", oldest_retained_id: null, cursor: null };
    this.#queue.push({ id: "", event: { type: TRUNCATED, payload } });
    return "";
  }

  /** Takes part until it is closed; rejects with the StreamStopped that ends it. */
  run() {
    const { window, document } = this.#world;
    const { signal } = this.#listening;
    const join = () => this.#join();
    const leave = () => this.#leave();
    const look = () => document.visibilityState === "visible" && this.#ask(true);
    window?.addEventListener("pagehide", leave, { signal });
    window?.addEventListener("pageshow", join, { signal });
    window?.addEventListener("online", () => this.#ask(true), { signal });
    document?.addEventListener("freeze", leave, { signal });
    document?.addEventListener("resume", join, { signal });
    document?.addEventListener("visibilitychange", look, { signal });
    return new Promise((_, fail) => {
      this.#fail = fail;
      this.#join();
      this.#handleAll();
    });
  }

  close() {
    this.#listening.abort();
    this.#leave();
  }

  #join() {
    if (this.#channel) return;
    this.#channel = this.#world.channel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#asked = null;
    this.#ask();
    this.#campaign(this.#channel).catch(this.#fail);
  }

  #leave() {
    const { clearTimeout } = this.#world;
    this.#channel?.close();
    this.#channel = null;
    clearTimeout(this.#watchdog);
    clearTimeout(this.#rest);
    this.#request?.abort();
    this.#own?.end();
  }

  // Waits for the lock, and for the next one where it was stolen or given up.
  async #campaign(channel) {
    while (this.#channel === channel) {
      const request = (this.#request = new AbortController());
      const { signal } = request;
      const how = this.#isStealing ? { steal: true } : { signal };
      this.#isStealing = false;
      let hasLed = false;
      const lead = () => {
        hasLed = true;
        return this.#lead(signal);
      };
      try {
        await this.#world.locks.request(this.#name, how, lead);
      } catch (error) {
        if (error.name !== "AbortError") {
          if (hasLed) throw error;
          await lead(); // no locks for this page: a connection of its own
        }
      } finally {
        request.abort();
      }
      if (this.#restMs) await this.#restAWhile();
    }
  }

  async #lead(signal) {
    if (signal.aborted) return;
    this.#world.clearTimeout(this.#watchdog);
    const position = this.#recent.end;
    this.#at ||= position;
    const connection = this.#open({
      position,
      onState: (state) => this.#declare(state),
      take: (record) => this.#read(record),
      heard: () => this.#post(),
    });
    this.#leading = connection;
    signal.addEventListener("abort", () => connection.end());
    try {
      await connection.run();
    } finally {
      if (this.#leading === connection) this.#leading = null;
    }
  }

  #declare(state) {
    if (state.state === "live") this.#tokenless = 0;
    if (!OF_THE_TAB.has(state.reason)) {
      this.#say(state);
      return this.#post();
    }
    if (state.state === "waiting") {
      const mostMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tokenless++);
      this.#restMs = this.#world.random() * mostMs;
      state = { ...state, until: this.#world.now() + this.#restMs };
      this.#request.abort();
    }
    this.#say(state);
  }

  // Others come first; and where there are none, the page is not asked for a token all the time.
  async #restAWhile() {
    const { setTimeout, clearTimeout } = this.#world;
    await new Promise((wake) => {
      this.#wake = wake;
      this.#rest = setTimeout(wake, this.#restMs);
    });
    clearTimeout(this.#rest);
    this.#restMs = 0;
  }

  #say(state) {
    this.#state = state;
    if (!this.#own || state.state === "stopped") this.#tab.say(state);
  }

  #post(records = this.#unsent.splice(0), far = null) {
    this.#channel?.postMessage({ at: this.#at, state: this.#state, records, far });
  }

  #read(record) {
    const link = linked(record);
    const { prev, id } = link;
    if (id === null) return null;
    if (!this.#at || prev === this.#at || isAfter(id, this.#at)) this.#at = id;
    this.#unsent.push(link);
    this.#offer(link);
    this.#handleAll();
    return id;
  }

  #hear({ want, hurry, at, state, records, far }) {
    if (want !== undefined && this.#leading) this.#answer(want, hurry);
    if (want !== undefined || this.#leading) return; // what another leader reads, it reads itself
    this.#follow(state);
    this.#at = at;
    this.#far = far;
    // What is replayed after the origin may be of a life that this tab has not seen.
    const isLive = state.state === "live";
    for (const record of records) if (isLive || record.prev !== ORIGIN) this.#offer(record);
    if (!this.#reach && at) this.#offer({ prev: "", id: at, event: null }); // begins where it is
    this.#handleAll();
  }

  #follow(state) {
    const isNew = JSON.stringify(state) !== JSON.stringify(this.#state);
    this.#expectWord(this.#silenceMs + Math.max(0, (state.until ?? 0) - this.#world.now()));
    if (isNew) this.#say(state);
  }

  #offer(record) {
    this.#recent.add(record);
    this.#take(record);
  }

  #take(record) {
    if (this.#own || this.#queue.length >= PAGE || record.prev !== this.#reach) return;
    this.#queue.push(record);
    this.#reach = record.id;
  }

  async #handleAll() {
    if (this.#isHandling) return this.#rejoin();
    this.#isHandling = true;
    try {
      while (this.#hasNext()) {
        if (this.#queue.length) await this.#handle(this.#queue.shift());
        else await this.#catchUp();
      }
      this.#isHandling = false;
    } catch (error) {
      this.#fail(error);
    }
  }

  async #handle(record) {
    await this.#tab.handle(record);
    const hasSaid = record.event?.type === TRUNCATED; // its own state
    if (hasSaid && this.#state) this.#tab.say(this.#state);
  }

  #hasNext() {
    if (this.#listening.signal.aborted) return false;
    if (this.#queue.length) return true;
    this.#recent.after(this.#reach)?.forEach((record) => this.#take(record));
    if (this.#queue.length) return true;
    if (this.#at !== this.#reach) this.#ask();
    return this.#channel !== null && this.#isFar();
  }

  // Not twice for the same at once.
  #ask(hurry = false) {
    if (hurry) this.#wake?.();
    if (this.#leading) {
      if (!this.#after(this.#reach)) this.#far = this.#reach;
      return;
    }
    const now = this.#world.now();
    if (!hurry && this.#asked === this.#reach && now < this.#askedAt + ASK_AGAIN_MS) return;
    [this.#asked, this.#askedAt] = [this.#reach, now];
    this.#channel?.postMessage({ want: this.#reach, hurry });
    this.#expectWord(ANSWER_MS);
  }

  #answer(want, hurry) {
    if (hurry) this.#leading.hurry();
    const records = this.#after(want);
    this.#post(records ?? [], records ? null : want);
  }

  // A page of what follows a position; null where only the server can say it: so of the origin, which
  // each life of the journal has, and this leader's may be over.
  #after(position) {
    if (position === ORIGIN && this.#at !== ORIGIN) return null;
    const isAhead = this.#state?.state !== "live" && isAfter(position, this.#recent.end);
    return position ? (this.#recent.after(position) ?? (isAhead ? [] : null)) : [];
  }

  #isFar() {
    return this.#reach && this.#far === this.#reach && this.#at !== this.#reach;
  }

  async #catchUp() {
    this.#far = null;
    const own = this.#open({
      position: this.#reach,
      onState: (state) => this.#tab.say(state),
      take: (record) => this.#takeItself(linked(record)),
    });
    this.#own = own;
    try {
      await own.run();
    } finally {
      this.#own = null;
    }
    if (this.#state) this.#tab.say(this.#state);
  }

  async #takeItself(link) {
    if (link.id === null) return null;
    await this.#tab.handle(link);
    this.#reach = link.id;
    this.#rejoin();
    return link.id;
  }

  #rejoin() {
    if (this.#reach === this.#at || this.#recent.after(this.#reach)?.length) this.#own?.end();
  }

  // A leader that can't say a word holds its lock all the same.
  #expectWord(ms) {
    const { setTimeout, clearTimeout, random } = this.#world;
    clearTimeout(this.#watchdog);
    if (!this.#channel) return;
    const jitteredMs = ms + random() * FIRST_WAIT_MS; // one tab is to be the first
    this.#watchdog = setTimeout(() => this.#steal(), Math.min(jitteredMs, LONGEST_TIMER_MS));
  }

  #steal() {
    this.#isStealing = true;
    this.#request.abort();
  }
}

/** One user's events, on their way to the page's handlers. */
class UserStream {
  #options;
  #world;
  #url;
  #user;
  #kept;
  #cursor;
  #connection; // for what this tab fetches itself: the state, and where it shares none, the stream
  #shared = null;
  #snapshotUrl;
  #stated = ""; // the cursor of the last snapshot

  constructor(options, world) {
    const { user, cursor } = options;
    const url = String(options.url ?? "/api/events");
    this.#options = options;
    this.#world = world;
    this.#url = url;
    this.#user = user;
    this.#kept = new KeptCursor(url, user, world);
    this.#cursor = String(cursor ?? this.#kept.read()).replace(/^\d+$/, "$&-0");
    const beside = url.replace(/^([^?#]*\/)?events(?=\?|$)/, "$1sources");
    this.#snapshotUrl = options.snapshotUrl ?? beside;
    if ((options.snapshotFirst || options.onSnapshot) && this.#snapshotUrl === url) {
      throw new TypeError(`snapshotUrl is needed for ${url}`);
    }
    const parts = { position: this.#cursor, take: (record) => this.#take(record) };
    this.#connection = new Connection(url, options, world, parts);
  }

  get cursor() {
    return this.#cursor;
  }

  async run() {
    await this.#connection.run(() => this.#begin());
    if (this.#connection.isClosed || !this.#isShared()) return;
    this.#shared = this.#share();
    try {
      await this.#shared.run();
    } finally {
      this.#shared.close();
    }
  }

  close(why) {
    this.#shared?.close();
    this.#connection.close(why);
  }

  async #begin() {
    if (this.#options.snapshotFirst) {
      await this.#fetchSnapshot(null);
      if (!this.#cursor) this.#move(this.#stated);
    }
    return this.#isShared() ? null : this.#cursor;
  }

  #isShared() {
    const { locks, channel } = this.#world;
    return this.#options.share !== false && this.#user !== undefined && locks && channel;
  }

  #share() {
    const { keepaliveMs = KEEPALIVE_MS } = this.#options;
    return new SharedStream(`eventstream:${this.#url}:${this.#user}`, this.#world, {
      position: this.#cursor,
      silenceMs: 4 * keepaliveMs, // a connection is given three, and says then that it waits
      open: ({ onState, ...parts }) =>
        new Connection(this.#url, { ...this.#options, onState }, this.#world, parts),
      tab: { handle: (record) => this.#handle(record), say: (state) => this.#say(state) },
    });
  }

  #say({ state, ...why }) {
    if (state === "stopped") this.close(why);
    else this.#connection.say(state, why);
  }

  // A record that the tabs share is cloned: it may be handed on after the page has changed its own.
  async #handle({ id, event }) {
    const record = { id: plain(id), event: structuredClone(event) };
    if (event?.type !== TRUNCATED) return this.#take(record);
    await this.#connection.run(() => this.#take(record).then(() => null));
    return null;
  }

  async #take({ id, event }) {
    if (event?.type === TRUNCATED) return this.#truncated(event);
    if (event && !this.#isStated(id, event)) {
      await call(this.#world, this.#options.onEvent, event, id);
    }
    if (id) this.#move(id);
    return id;
  }

  // Only runs are in a snapshot: of what is still there, any other event is handed on.
  #isStated(id, { type }) {
    return id && this.#stated && !isAfter(id, this.#stated) && type.startsWith(STATED);
  }

  async #truncated(event) {
    const { cursor, reason } = event.payload;
    this.#connection.say("catching_up", { reason: "truncated" });
    this.#stated = ""; // ids may have begun anew: an old one would hide what comes
    if (this.#options.onSnapshot) await this.#fetchSnapshot(event);
    else await call(this.#world, this.#options.onEvent, event, null);
    this.#move(cursor ?? "", reason === "trimmed" ? undefined : this.#cursor); // ids may start anew
    return this.#cursor;
  }

  async #fetchSnapshot(truncation) {
    const snapshot = await this.#connection.json(this.#snapshotUrl);
    await call(this.#world, this.#options.onSnapshot, snapshot, truncation);
    this.#stated = snapshot.cursor;
    this.#user = snapshot.user_id ?? this.#user; // the server knows better who it is
  }

  #move(cursor, replaced) {
    this.#cursor = cursor;
    this.#kept.write(cursor, replaced);
  }
}

/** The events of one answer, on their way to the page. */
class Answer {
  last = null; // the event
  #options;
  #world;
  #number;
  #url;

  constructor(messageId, options, world) {
    // Dots would lead out of the path: no encoding hides them.
    if (/^\.{0,2}$/.test(messageId ?? "")) throw new TypeError(`no message id: "${messageId}"`);
    this.#options = options;
    this.#world = world;
    this.#number = String(options.cursor ?? "");
    const at = `/${encodeURIComponent(messageId)}`;
    const url = String(options.url ?? "/api/messages");
    const inPath = (path) => url.replace(/\/?(?=[?#]|$)/, path);
    this.#url = inPath(at);
    const parts = {
      position: this.#number,
      take: (record) => this.#take(record),
      isOver: () => this.#isOver(),
      levelMs: ANSWER_LEVEL_MS,
    };
    this.connection = new Connection(inPath(`${at}/events`), options, world, parts);
  }

  async #take({ id, event }) {
    const truncated = event?.type === TRUNCATED; // it is sent anew from its beginning
    this.last = truncated ? { type: "restart" } : (event ?? this.last);
    if (event) await call(this.#world, this.#options.onEvent, this.last, id);
    if (truncated || id) this.#number = id ?? "";
    return this.#number;
  }

  // An end in the middle is followed by a restart. One that was read before is not sent again.
  async #isOver() {
    if (ENDS.has(this.last?.type)) return true;
    const { status, cursor, error } = await this.connection.json(this.#url);
    if (cursor !== this.#number) return false;
    if (status === "failed") this.last = { type: "error", code: error };
    else if (status === "stopped") this.last = { type: "end", stopped: true };
    else if (status === "finished") this.last = { type: "end" };
    return ENDS.has(this.last?.type);
  }
}

/**
 * Watches a user's events for as long as the page lives, or until it is closed.
 * eventstream.d.ts has the options and the states.
 * @returns {{cursor: string, close: () => void}}
 * @throws {TypeError} the state may be asked for, and it is not known where
 */
export function connect(options = {}, world = browser()) {
  const stream = new UserStream(options, world);
  stream.run().catch((error) => {
    if (error instanceof StreamStopped) return; // onState has said it
    stream.close(failed(error));
    world.report(error);
  });
  return {
    get cursor() {
      return stream.cursor;
    },
    close: () => stream.close(),
  };
}

/**
 * Watches an answer to its end, from `cursor` or from its beginning.
 * eventstream.d.ts has the options.
 * @returns {Promise<object>} the event that ended it
 * @throws {StreamStopped} it is not there or not yours, or nobody is signed in
 * @throws {TypeError} the id is empty, or dots; or no request can be made of the url and the token
 * @throws the signal's reason, where that was aborted
 */
export async function resumeMessage(messageId, options = {}, world = browser()) {
  const { signal } = options;
  const answer = new Answer(messageId, options, world);
  const close = () => answer.connection.close();
  signal?.throwIfAborted();
  signal?.addEventListener("abort", close);
  try {
    await answer.connection.run();
  } catch (error) {
    answer.connection.close(failed(error)); // a StreamStopped has been said
    throw error;
  } finally {
    signal?.removeEventListener("abort", close);
  }
  signal?.throwIfAborted();
  answer.connection.say("stopped", { reason: "over" });
  return answer.last;
}
