/** Uploads on their way to the server: three at a time, each with its own transfer progress. */

import { sendSource } from "/static/api.js";

const AT_A_TIME = 3; // the stream and other requests need connections too

/** One source on its way. Phases: waiting, uploading, handing over, accepted, failed, aborted. */
class Upload {
  phase = "waiting";
  sent = 0;
  sourceId = null;
  runId = null;
  error = null; // a Refusal, or the like of one
  key = newKey();
  abandon = new AbortController();

  constructor({ name, files }) {
    this.name = name;
    this.files = files;
    this.size = files.reduce((sum, { file }) => sum + file.size, 0);
  }
}

export class Uploads {
  #queue = [];
  #onChange;

  /** @param {(upload: Upload) => void} onChange called at every step of every upload */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /**
   * Takes a source to send.
   * @param {{name: string, files: {file: File, path: string}[]}} source
   */
  add(source) {
    const upload = new Upload(source);
    if (upload.files.length === 0) return this.#refuseEmpty(upload);
    this.#queue.push(upload);
    this.#become(upload, "waiting");
    this.#sendNext();
  }

  /** Sends a failed upload again; its key keeps the server from taking it twice. */
  retry(upload) {
    upload.sent = 0;
    this.#queue.push(upload);
    this.#become(upload, "waiting");
    this.#sendNext();
  }

  /** Abandons an upload that isn't with the server yet. */
  abort(upload) {
    this.#queue = this.#queue.filter((other) => other !== upload);
    upload.abandon.abort();
    this.#become(upload, "aborted");
    this.#sendNext();
  }

  #refuseEmpty(upload) {
    upload.error = { message: `Nothing to ingest in ${upload.name}.`, passing: false };
    this.#become(upload, "failed");
  }

  #sendNext() {
    const next = this.#queue.slice(0, AT_A_TIME).find(({ phase }) => phase === "waiting");
    if (!next) return;
    this.#send(next);
    this.#sendNext();
  }

  async #send(upload) {
    this.#become(upload, "uploading");
    try {
      const onProgress = (sent, total) => this.#sent(upload, sent, total);
      const answer = await sendSource(upload, onProgress, upload.abandon.signal);
      upload.sourceId = answer.source_id;
      upload.runId = answer.run_id;
      this.#leave(upload, "accepted");
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      upload.error = error;
      this.#leave(upload, "failed");
    }
  }

  #sent(upload, sent, total) {
    upload.sent = Math.round((sent / total) * upload.size);
    this.#become(upload, sent < total ? "uploading" : "handing over");
  }

  #leave(upload, phase) {
    this.#queue = this.#queue.filter((other) => other !== upload);
    this.#become(upload, phase);
    this.#sendNext();
  }

  #become(upload, phase) {
    upload.phase = phase;
    if (this.#queue.length > 0) addEventListener("beforeunload", askFirst);
    else removeEventListener("beforeunload", askFirst);
    this.#onChange(upload);
  }
}

// The browser asks in its own words whether to leave: what is on its way would be lost.
const askFirst = (event) => event.preventDefault();

// crypto.randomUUID is missing on a page that came over plain HTTP from another host.
function newKey() {
  const numbers = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(numbers, (number) => number.toString(16).padStart(8, "0")).join("");
}
