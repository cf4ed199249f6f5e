/** Exponential backoff with full jitter: a thousand pages don't come back in the same second. */

const FIRST_MS = 500;
const MOST_MS = 30_000;
const LEAST_MS = 100;

export class Backoff {
  #failures = 0;

  /** How long to wait now, in milliseconds; longer after each call, at most 30 seconds. */
  next() {
    const ceiling = Math.min(MOST_MS, FIRST_MS * 2 ** this.#failures++);
    return Math.max(LEAST_MS, Math.random() * ceiling);
  }

  /** It worked: start over from short waits. */
  reset() {
    this.#failures = 0;
  }
}
