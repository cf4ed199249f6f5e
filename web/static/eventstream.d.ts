/** Types of eventstream.js; docs/how-to/use-the-client.md explains them. */

/** An event of a user's stream; docs/reference/events.md has the types and their payloads. */
export interface UserEvent {
  id: string;
  type: string;
  ts: string;
  user_id: string;
  topic: string;
  scope: { kind: string; id: string } | null;
  payload: Record<string, unknown>;
}

/** Events are missing: `trimmed`, or ids that start anew. It has no id. */
export interface Truncation {
  type: "backlog.truncated";
  payload: {
    reason: "trimmed" | "journal_reset" | "malformed_cursor";
    oldest_retained_id: string | null;
    cursor: string | null;
  };
}

/** An event of an answer; `end` and `error` are its last. */
export interface AnswerEvent {
  type: string;
  [field: string]: unknown;
}

/** What `GET /api/sources` says. */
export interface Snapshot {
  success: true;
  user_id: string;
  cursor: string;
  sources: Record<string, unknown>[];
}

/** What a state does not have may be asked of it all the same: of any, without looking which it is. */
interface Unsaid {
  until?: undefined;
  reason?: undefined;
  message?: undefined;
  status?: undefined;
  code?: undefined;
}

export interface StateConnecting extends Unsaid {
  state: "connecting";
}

export interface StateLive extends Unsaid {
  state: "live";
}

export interface StateCatchingUp extends Omit<Unsaid, "reason"> {
  state: "catching_up";
  reason?: "truncated";
}

export interface StateWaiting {
  state: "waiting";
  /** When it tries again, in milliseconds since 1970. */
  until: number;
  reason:
    | "ended"
    | "token_expired"
    | "push_disabled"
    | "unreachable"
    | "offline"
    | "silent"
    | "refused"
    | "not_a_stream"
    | "no_token";
  message?: string;
  /** Of a refusal; else 0. */
  status?: number;
  /** The server's, of a refusal; else empty. */
  code?: string;
}

export interface StateStopped extends Pick<Unsaid, "until"> {
  state: "stopped";
  reason: "closed" | "over" | "unauthorized" | "refused" | "not_a_stream" | "failed";
  message?: string;
  status?: number;
  code?: string;
}

export type StreamState =
  | StateConnecting
  | StateLive
  | StateCatchingUp
  | StateWaiting
  | StateStopped;

export type Token = string | (() => TokenValue) | ((asked: { refused: boolean }) => TokenValue);
type TokenValue = string | null | Promise<string | null>;

/** What both streams take. */
export interface StreamOptions {
  /**
   * Sent as Bearer. A function is asked at each request, with `refused` after a 401, once; and again
   * later where it fails, or has not answered within three keepalives.
   */
  token?: Token;
  /** Of fetch, for cookies: `same-origin`, unless said otherwise. */
  credentials?: RequestCredentials;
  /** The server's SSE_KEEPALIVE_SECONDS, in milliseconds: 15000, unless said otherwise. */
  keepaliveMs?: number;
  onState?: (state: StreamState) => void;
}

export interface ConnectOptions extends StreamOptions {
  /** `/api/events`, unless said otherwise. */
  url?: string | URL;
  /**
   * Where the state is fetched: `sources` beside a `url` whose path ends in `events`. Of any other it is
   * needed where the state may be asked for, by `snapshotFirst` or for `onSnapshot`.
   */
  snapshotUrl?: string | URL;
  /** Whose cursor is kept in localStorage. Without it none is kept. */
  user?: string;
  /** One connection for all of the user's tabs: true, where it is known who the user is. */
  share?: boolean;
  /** Where to go on from, in place of the kept cursor; 0 is before the first event. */
  cursor?: string | number;
  /** Fetches the state before it watches, and goes on from there where it has no cursor. */
  snapshotFirst?: boolean;
  /** Gets each event once. The cursor moves when it has run, or its promise is settled. */
  onEvent?: (event: UserEvent | Truncation, id: string | null) => void | Promise<void>;
  /** Gets the state after a truncation, and at first with `snapshotFirst` (then without one). */
  onSnapshot?: (state: Snapshot, truncation: Truncation | null) => void | Promise<void>;
}

export interface UserStream {
  /** The id of the last event that was handled. */
  readonly cursor: string;
  close(): void;
}

export interface ResumeOptions extends StreamOptions {
  /** `/api/messages`, unless said otherwise; a query stays at the end. */
  url?: string | URL;
  /** The number of the last event that was handled; without it all are sent. */
  cursor?: string | number;
  signal?: AbortSignal;
  /** Gets each event once. Of `restart` on, what came before is void. */
  onEvent?: (event: AnswerEvent, number: string | null) => void | Promise<void>;
}

/** It has stopped, and does not come back. */
export class StreamStopped extends Error {
  readonly name: "StreamStopped";
  readonly reason: string;
  readonly status: number;
  readonly code: string;
}

export type StreamPart =
  | { data: string | null; id: string; hasId: boolean; type: string }
  | { retryMs: number }
  | { comment: string };

/** A parser of event streams by the HTML standard, section 9.2.6. */
export class EventStreamParser {
  push(bytes: Uint8Array): StreamPart[];
}

/** Whether an id, of either stream, lies after a cursor. */
export function isAfter(id: string, cursor: string): boolean;

/** Watches a user's events until it is closed. Throws a TypeError where `snapshotUrl` is needed. */
export function connect(options?: ConnectOptions): UserStream;

/**
 * Watches an answer; resolves with its last event. Rejects with StreamStopped or the signal's reason, or
 * with a TypeError where no request can be made of the id, the url or the token.
 */
export function resumeMessage(messageId: string, options?: ResumeOptions): Promise<AnswerEvent>;

export {}; // else what is not exported would be, too
