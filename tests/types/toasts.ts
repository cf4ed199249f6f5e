/** What an application writes with the types of `<event-toasts>`, as in docs/how-to/show-toasts.md. */

import { connect } from "../../web/static/eventstream.js";
import { EventToasts } from "../../web/static/event-toasts.js";
import type { EventToastsEventMap, ShownUpload } from "../../web/static/event-toasts.js";

declare function show(...words: (string | number | undefined)[]): void;
declare function sendAnswer(approvalId: unknown, answer: string): Promise<void>;

const toasts: EventToasts | null = document.querySelector("event-toasts");
if (!toasts) throw new Error("none here");

toasts.token = async ({ refused }) => (refused ? "fresh" : null);
toasts.addEventListener(
  "state",
  ({ detail: { state, reason, until } }) => show(state, reason, until),
);

connect({
  snapshotFirst: true,
  onSnapshot: (snapshot, truncation) => toasts.paint(snapshot, truncation),
  onEvent: (event) => toasts.take(event),
});
toasts.paint({ sources: [] });

const upload: ShownUpload = {
  name: "a.pdf",
  size: 2,
  sent: 1,
  phase: "uploading",
  sourceId: null,
  runId: null,
  error: null,
};
toasts.showUpload(upload);
toasts.addEventListener("upload-retry", ({ detail }) => show(detail.error?.message, detail.sent));
toasts.addEventListener("upload-cancel", ({ detail }) => show(detail.name));

for (const answer of ["approve", "deny"] as const) {
  toasts.addEventListener(answer, async ({ detail: event }) => {
    try {
      await sendAnswer(event.payload["approval_id"], answer);
    } catch (error) {
      toasts.askAgain(event, String(error));
    }
  });
}
toasts.addEventListener("click", ({ clientX }) => show(clientX), { once: true });
const made: EventToasts = document.createElement("event-toasts");
const names: (keyof EventToastsEventMap)[] = ["approve", "click"];
export { made, names };

// What is wrong is said to be.
// @ts-expect-error no such phase
toasts.showUpload({ ...upload, phase: "lost" });
// @ts-expect-error a reason is missing
toasts.askAgain({});
// @ts-expect-error an upload has no payload
toasts.addEventListener("upload-retry", ({ detail }) => detail.payload);
