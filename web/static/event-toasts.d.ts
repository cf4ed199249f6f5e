/** Types of event-toasts.js; docs/how-to/show-toasts.md explains them. */

import type { Snapshot, StreamState, Token, Truncation, UserEvent } from "./eventstream.js";

/** An upload that the page has under way: the same object at each of its steps. */
export interface ShownUpload {
  name: string;
  /** In bytes. */
  size: number;
  sent: number;
  phase: "waiting" | "uploading" | "handing over" | "accepted" | "failed" | "aborted";
  /** What the server answered. */
  sourceId: string | null;
  runId: string | null;
  /** `passing`: trying again may help. */
  error: { message: string; passing: boolean } | null;
}

export interface EventToastsEventMap extends HTMLElementEventMap {
  approve: CustomEvent<UserEvent>;
  deny: CustomEvent<UserEvent>;
  "upload-retry": CustomEvent<ShownUpload>;
  "upload-cancel": CustomEvent<ShownUpload>;
  state: CustomEvent<StreamState>;
}

/** `<event-toasts>`, with the attributes `src` and `user`. */
export class EventToasts extends HTMLElement {
  token: Token | undefined;
  paint(
    snapshot: Pick<Snapshot, "sources"> & Partial<Pick<Snapshot, "user_id">>,
    truncation?: Truncation | null,
  ): void;
  take(event: UserEvent | Truncation): void;
  showUpload(upload: ShownUpload): void;
  askAgain(event: UserEvent, reason: string): void;
  addEventListener<Name extends keyof EventToastsEventMap>(
    type: Name,
    listener: (this: EventToasts, event: EventToastsEventMap[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "event-toasts": EventToasts;
  }
}
