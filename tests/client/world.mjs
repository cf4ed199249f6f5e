/** A world for the client in which time moves when the test says so, and the server is scripted. */

const encoder = new TextEncoder();

/** Lets everything that can go on without time or network go on. */
export async function settle() {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A response that stays open: bytes are sent as the test says. */
export function openStream(headers = {}) {
  let controller;
  const body = new ReadableStream({ start: (given) => (controller = given) });
  const type = "text/event-stream; charset=utf-8";
  return {
    response: new Response(body, { headers: { "Content-Type": type, ...headers } }),
    send: (text) => controller.enqueue(encoder.encode(text)),
    end: () => controller.close(),
    break: () => controller.error(new TypeError("network error")),
  };
}

/** A whole stream: what it sends, and its end. */
export function stream(text) {
  const made = openStream();
  made.send(text);
  made.end();
  return made.response;
}

export const json = (body, status = 200, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers });

/** One user event's frame. */
export const frame = (id, more = {}) =>
  `id: ${id}\ndata: ${JSON.stringify({ id, type: "test.event", payload: {}, ...more })}\n\n`;

export class World {
  requests = [];
  reported = [];
  kept = new Map();
  window = new EventTarget();
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  #now = 1_000_000;
  #timers = new Map();
  #next = 1;
  #answers = [];
  chance = 0.5;

  constructor(...answers) {
    this.#answers = answers;
    const store = { getItem: (k) => this.kept.get(k) ?? null, setItem: (k, v) => this.kept.set(k, v) };
    this.storage = () => store;
  }

  answer(...answers) {
    this.#answers.push(...answers);
  }

  // As properties, since the client takes them off the object.
  now = () => this.#now;
  random = () => this.chance;
  report = (error) => this.reported.push(error);

  setTimeout = (wake, ms) => {
    const timer = this.#next++;
    this.#timers.set(timer, { at: this.#now + ms, wake });
    return timer;
  };

  clearTimeout = (timer) => this.#timers.delete(timer);

  fetch = async (url, { headers, signal }) => {
    this.requests.push({ url, headers, at: this.#now, signal });
    if (this.#answers.length === 0) return new Promise(() => {}); // nobody answers
    const answer = this.#answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };

  get timers() {
    return this.#timers.size;
  }

  /** Time goes by and wakes nobody, as for a tab that the browser has put to sleep. */
  sleep(ms) {
    this.#now += ms;
  }

  /** Moves time on, and wakes in order who waits for it. */
  async advance(ms) {
    const until = this.#now + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until);
      if (due.length === 0) break;
      const [timer, { at, wake }] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.#timers.delete(timer);
      this.#now = at;
      wake();
      await settle();
    }
    this.#now = until;
    await settle();
  }
}
