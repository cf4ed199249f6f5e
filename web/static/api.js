/** The server's JSON endpoints. What it refuses is a Refusal whose message the user can read. */

/** The server said no, or could not be reached. */
export class Refusal extends Error {
  name = "Refusal";

  /** @param {number} status the answer's; 0 where there was none */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
    this.passing = status === 0 || status === 429 || status >= 500; // worth another try
  }
}

const UNREACHABLE = "The server can't be reached.";

/** A JSON answer; throws Refusal where the server says no, or can't be reached. */
export async function getJson(url, options) {
  let response;
  try {
    response = await fetch(url, { headers: { Accept: "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(UNREACHABLE);
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || !body?.success) throw refusal(response.status, body);
  return body;
}

function refusal(status, body) {
  return new Refusal(body?.message || `The server answered with status ${status}.`, status);
}

const sourceUrl = (id) => `/api/sources/${encodeURIComponent(id)}`;

/** Ends a source's run, where one is under way. */
export const cancelSource = (id) => getJson(sourceUrl(id), { method: "DELETE" });

/** Starts another run of a source, of the same files. */
export const reingestSource = (id) => getJson(`${sourceUrl(id)}/reingest`, { method: "POST" });

/** Hits for a query; `signal` abandons it. */
export async function search(query, signal) {
  const answer = await getJson(`/api/search?${new URLSearchParams({ q: query })}`, { signal });
  return answer.hits;
}

/** Has a question answered; the answer's events are at its own stream. */
export const ask = (question) =>
  getJson("/api/messages", {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/json" },
    body: JSON.stringify({ question }),
  });

const answerUrl = (id) => `/api/messages/${encodeURIComponent(id)}`;

/** Has an answer stopped, where it is being written. */
export const stopAnswer = (id) => getJson(answerUrl(id), { method: "DELETE" });

/**
 * Sends files as one source.
 * @param {object} upload
 * @param {string} upload.name
 * @param {string} upload.key sent twice, it still makes one run
 * @param {{file: File, path: string}[]} upload.files
 * @param {(sent: number, total: number) => void} onProgress in bytes, of the whole request
 * @param {AbortSignal} signal
 * @returns {Promise<{source_id: string, run_id: string}>}
 */
export function sendSource({ name, key, files }, onProgress, signal) {
  const form = new FormData();
  form.append("name", name);
  for (const { file, path } of files) form.append("file", file, path);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch has no upload progress
    request.open("POST", "/api/sources");
    request.responseType = "json";
    request.setRequestHeader("Idempotency-Key", key);
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onload = () => {
      if (request.status === 202 && request.response?.success) resolve(request.response);
      else reject(refusal(request.status, request.response));
    };
    request.onerror = () => reject(new Refusal("The connection broke before all was sent."));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
