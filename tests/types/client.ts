/** What an application writes with the client's types: each name, the guides' examples, and faults. */

import {
  connect,
  EventStreamParser,
  isAfter,
  resumeMessage,
  StreamStopped,
} from "../../web/static/eventstream.js";
import type {
  AnswerEvent,
  ConnectOptions,
  ResumeOptions,
  Snapshot,
  StateCatchingUp,
  StateConnecting,
  StateLive,
  StateStopped,
  StateWaiting,
  StreamOptions,
  StreamPart,
  StreamState,
  Token,
  Truncation,
  UserEvent,
  UserStream,
} from "../../web/static/eventstream.js";

declare function show(...words: (string | number | null | undefined)[]): void;
declare function currentToken(): string | null;
declare function renewToken(): Promise<string>;

// As in docs/how-to/use-the-client.md.
const stream: UserStream = connect({
  token: async ({ refused }) => (refused ? await renewToken() : currentToken()),
  snapshotFirst: true,
  onSnapshot: ({ sources, user_id, cursor }, truncation) =>
    show(sources.length, user_id, cursor, truncation?.payload.reason),
  onEvent: (event, id) => apply(event, id),
  onState: ({ state, reason, until }) => show(state, reason, until),
});
show(stream.cursor, stream.cursor > "" && isAfter("2-0", stream.cursor) ? 1 : 0);
stream.close();

function apply(event: UserEvent | Truncation, id: string | null): void {
  if ("id" in event) show(event.id, event.ts, event.user_id, event.topic, event.scope?.kind);
  else show(event.payload.reason, event.payload.oldest_retained_id, event.payload.cursor, id);
}

function say(now: StreamState): string {
  if (now.state === "waiting") return sayWaiting(now);
  if (now.state === "stopped") return sayStopped(now);
  if (now.state === "catching_up") return sayCatchingUp(now);
  const calm: StateConnecting | StateLive = now;
  return calm.state;
}

const sayWaiting = ({ until, reason, status, code, message }: StateWaiting): string =>
  `${new Date(until).toISOString()} ${reason} ${status ?? 0} ${code ?? ""} ${message ?? ""}`;
const sayStopped = ({ reason, status, code, message }: StateStopped): string =>
  `${reason} ${status ?? 0} ${code ?? ""} ${message ?? ""}`;
const sayCatchingUp = ({ reason }: StateCatchingUp): "truncated" | "" => reason ?? "";

async function watch(messageId: string, signal: AbortSignal): Promise<AnswerEvent> {
  const options: ResumeOptions = {
    cursor: 7,
    signal,
    onEvent: ({ type }, number) => show(type, number),
  };
  try {
    return await resumeMessage(messageId, options);
  } catch (error) {
    if (error instanceof StreamStopped) show(error.reason, error.status, error.code, error.message);
    throw error;
  }
}

const parts: StreamPart[] = new EventStreamParser().push(new Uint8Array());
for (const part of parts) {
  if ("comment" in part) show(part.comment);
  else if ("retryMs" in part) show(part.retryMs);
  else show(part.data, part.id, part.type, part.hasId ? 1 : 0);
}

const tokens: Token[] = ["plain", () => null, async () => "later", ({ refused }) => `${refused}`];
const shared: StreamOptions = {
  token: "plain",
  credentials: "include",
  keepaliveMs: 5000,
  onState: say,
};
const both: [ConnectOptions, ResumeOptions] = [shared, shared];
const state: Snapshot = { success: true, user_id: "alice", cursor: "0-0", sources: [] };
export { both, state, tokens, watch };

connect();
connect({ url: new URL("https://a.test/feed"), snapshotUrl: new URL("https://a.test/state"), cursor: 0 });
resumeMessage("id");
resumeMessage("id", { url: new URL("https://a.test/messages") });

// What is wrong is said to be.
// @ts-expect-error the types' own
export type { Unsaid } from "../../web/static/eventstream.js";
// @ts-expect-error the cursor is the stream's own
stream.cursor = "1-0";
// @ts-expect-error no such option
connect({ onevent: apply });
// @ts-expect-error a number is no token
connect({ token: () => 7 });
// @ts-expect-error no such state
const unknown: StreamState = { state: "idle" };
// @ts-expect-error who waits says until when
const endless: StreamState = { state: "waiting", reason: "ended" };
// @ts-expect-error one waits for an answer to end
const ended: AnswerEvent = resumeMessage("id", {});
