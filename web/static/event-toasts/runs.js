/**
 * A run as the page knows it, and how an event changes it. Pure: a run goes in, a run comes out.
 *
 * Runs have the fields of `GET /api/sources`. Percent never goes down within an attempt. An event
 * that is repeated says how its run stands, and changes only what the page did not know yet.
 */

const PREFIX = "source.ingest.";

const STATUS = {
  queued: "queued",
  started: "running",
  progress: "running",
  retrying: "retrying",
  stalled: "stalled",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
};

const ENDED = new Set(["completed", "failed", "cancelled"]);

/** Whether nothing more will come of this run. */
export const hasEnded = (run) => ENDED.has(run.status);

/** What of a run's files failed: `{name, code, message}` each. */
export const failedFiles = (run) => run.result?.failed_files ?? [];

/**
 * Applies an event to the run of its source.
 * @param {object|undefined} run the source's run so far
 * @param {object} event an envelope
 * @returns {object|undefined} the run after it; the same object where it changes nothing
 */
export function applyEvent(run, event) {
  const status = event.type.startsWith(PREFIX) && STATUS[event.type.slice(PREFIX.length)];
  if (!status || event.scope?.kind !== "source") return run;
  const { payload } = event;
  if (!run || (run.run_id !== payload.run_id && status === "queued")) {
    return advance(fresh(event), status, event);
  }
  // Another run's late words, an attempt that is over, or anything after the end.
  if (run.run_id !== payload.run_id || hasEnded(run)) return run;
  if (payload.attempt < run.attempt) return run;
  return advance(run, status, event);
}

function fresh({ scope, ts, payload }) {
  return {
    source_id: scope.id,
    run_id: payload.run_id,
    name: payload.name,
    accepted_at: ts,
    attempt: 0,
    attempts: null,
    percent: 0,
    result: null,
  };
}

function advance(run, status, { ts, payload }) {
  const sameAttempt = run.attempt === payload.attempt;
  const shown = payload.stage ? payload : sameAttempt ? run : {};
  return {
    ...run,
    status,
    updated_at: ts,
    attempt: payload.attempt,
    percent: Math.max(payload.percent ?? 0, sameAttempt ? run.percent : 0),
    stage: shown.stage ?? null,
    done: shown.done ?? null,
    total: shown.total ?? null,
    unit: shown.unit ?? null,
    note: shown.note ?? null,
    error: payload.error ?? null,
    eta: payload.eta ?? null,
    attempts: payload.attempts ?? run.attempts ?? null,
    reason: payload.reason ?? null,
    seconds: payload.seconds ?? null,
    result: resultOf(status, payload),
  };
}

function resultOf(status, { files, chunks, characters, failed_files, more_failed_files }) {
  if (status !== "completed" && status !== "failed") return null;
  return { files, chunks, characters, failed_files, more_failed_files };
}
