/** What is said about runs, uploads, sign-ins, sizes and times, in plain sentences. */

import { failedFiles } from "./runs.js";

const VERBS = {
  fetch: "Fetching",
  unpack: "Unpacking",
  parse: "Parsing",
  chunk: "Chunking",
  embed: "Embedding",
  index: "Indexing",
};

const LABELS = {
  uploading: "Uploading",
  queued: "Waiting",
  running: "Running",
  retrying: "Retrying",
  stalled: "Stalled",
  completed: "Done",
  partial: "Done, in part",
  failed: "Failed",
  cancelled: "Cancelled",
};

const REASONS = {
  worker_lost: "The worker has gone silent. It is given time to come back.",
  interrupted: "The work was interrupted. It is picked up again soon.",
  superseded: "Replaced by a newer run of the same source.",
  revoked: "Its task was taken back.",
  cancelled: "Cancelled before it was done.",
};

const numbers = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** The status that icons and colours follow: a completed run that lost files is `partial`. */
export const look = (run) =>
  run.status === "completed" && failedFiles(run).length > 0 ? "partial" : run.status;

/** A status as a short label. */
export const label = (status) => LABELS[status] ?? status;

/** `1 file`, `20 files`. */
export function count(number, noun) {
  return `${numbers.format(number)} ${number === 1 ? noun : `${noun}s`}`;
}

/** Bytes as `640 KB`, `10.4 MB`. */
export function bytes(size) {
  if (size < 1e6) return `${numbers.format(Math.max(1, Math.round(size / 1e3)))} KB`;
  return `${(size / 1e6).toFixed(1)} MB`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)}\u00a0s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** How long ago, in words. */
export function since(iso, now = Date.now()) {
  const seconds = Math.min(0, (Date.parse(iso) - now) / 1000);
  if (seconds > -45) return "just now";
  if (seconds > -3600) return ago.format(Math.round(seconds / 60), "minute");
  if (seconds > -86_400) return ago.format(Math.round(seconds / 3600), "hour");
  return ago.format(Math.round(seconds / 86_400), "day");
}

/** How long a question may still be answered: `lapses in 40 s`. */
export function lapse(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 100) return `lapses in ${seconds} s`;
  if (seconds < 6000) return `lapses in ${Math.round(seconds / 60)} min`;
  return `lapses in ${Math.round(seconds / 3600)} h`;
}

/** One line on how a sign-in went. */
export function signInLine({ error, tools }) {
  if (error) return error.message;
  return ["Signed in", tools?.length > 0 && count(tools.length, "tool")].filter(Boolean).join(" · ");
}

/** One line on where a run stands. `now` is in milliseconds. */
export function runLine(run, now = Date.now()) {
  switch (run.status) {
    case "queued":
      return "Waiting for a worker";
    case "running":
      return [stageLine(run), run.note, run.attempt > 1 && attempt(run.attempt, run)]
        .filter(Boolean)
        .join(" · ");
    case "retrying":
      return [run.error?.message, again(run, now)].filter(Boolean).join(" ");
    case "stalled":
      return REASONS[run.reason] ?? "Nothing has been heard of it for a while.";
    case "completed":
      return produced(run);
    case "failed":
      return run.error?.message ?? "It could not be ingested.";
    default:
      return REASONS[run.reason] ?? "It was cancelled.";
  }
}

function stageLine({ stage, done, total, unit }) {
  if (!stage) return "Starting";
  const verb = VERBS[stage] ?? stage.charAt(0).toUpperCase() + stage.slice(1);
  if (total) {
    const noun = unit && total === 1 ? unit.replace(/s$/, "") : unit;
    return [verb, numbers.format(done ?? 0), "of", numbers.format(total), noun]
      .filter(Boolean)
      .join(" ");
  }
  return done ? [verb, numbers.format(done), unit].filter(Boolean).join(" ") : verb;
}

// Executions that were lost count besides, so there may be more than were planned.
const attempt = (number, { attempts }) =>
  attempts && number <= attempts ? `attempt ${number} of ${attempts}` : `attempt ${number}`;

function again(run, now) {
  const seconds = run.eta ? Math.ceil((Date.parse(run.eta) - now) / 1000) : 0;
  const next = attempt(run.attempt + 1, run);
  return seconds > 0 ? `Next try in ${seconds} s (${next}).` : `Trying again (${next}).`;
}

function produced({ result, seconds }) {
  const { files, chunks, characters } = result ?? {};
  const parts = [];
  if (files != null) parts.push(count(files, "file"));
  if (chunks != null) parts.push(count(chunks, "chunk"));
  if (seconds != null) parts.push(duration(seconds));
  else if (characters != null) parts.push(`${short.format(characters)} characters`);
  return parts.join(" · ") || "Done";
}

/** How many of a run's files failed: `1 of 20 files failed`. */
export function failureCount(run) {
  const failed = failedFiles(run).length + (run.result?.more_failed_files ?? 0);
  const all = (run.result?.files ?? 0) + failed;
  return `${numbers.format(failed)} of ${count(all, "file")} failed`;
}

/** One line on where an upload stands, before there is a run. */
export function uploadLine({ phase, sent, size, error }) {
  switch (phase) {
    case "waiting":
      return `${bytes(size)}, after the uploads before it`;
    case "uploading":
      return `Uploading ${bytes(sent)} of ${bytes(size)}`;
    case "handing over":
      return `Sent ${bytes(size)}, handing over`;
    default:
      return error.message;
  }
}
