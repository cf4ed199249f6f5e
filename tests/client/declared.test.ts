/** That the types declare what there is: the modules' names, their members, the options they read. */

import assert from "node:assert/strict";

// @ts-types="../../web/static/event-toasts.d.ts"
import type { EventToasts } from "../../web/static/event-toasts.js";
// @ts-types="../../web/static/eventstream.d.ts"
import * as client from "../../web/static/eventstream.js";
import { frame, json, settle, stream, World } from "./world.mjs";

const { connect, EventStreamParser, resumeMessage, StreamStopped } = client;

/** Has to name each of a type's names, and no other: else it does not compile. */
type Each<Name extends PropertyKey> = Record<Name, true>;

/** The types keep to themselves that a world can be handed in. */
type InWorld<Start extends (...given: never[]) => unknown> = (
  ...given: [...Parameters<Start>, World]
) => ReturnType<Start>;

function same(actual: Iterable<string>, declared: object): void {
  assert.deepEqual([...actual].sort(), Object.keys(declared).sort());
}

/** Options, and which of them were read. */
function watched<Options extends object>(options: Options): [Options, Set<string>] {
  const read = new Set<string>();
  const get = (from: Options, name: string | symbol): unknown => {
    read.add(String(name));
    return Reflect.get(from, name);
  };
  return [new Proxy(options, { get }), read];
}

const common: Required<client.StreamOptions> = {
  token: "signed",
  credentials: "include",
  keepaliveMs: 5000,
  onState: () => {},
};

Deno.test("the module exports what is declared", () => {
  const declared: Each<keyof typeof client> = {
    connect: true,
    EventStreamParser: true,
    isAfter: true,
    resumeMessage: true,
    StreamStopped: true,
  };
  same(Object.keys(client), declared);
});

Deno.test("connect() reads the options that are declared, and returns what is", async () => {
  const options: Required<client.ConnectOptions> = {
    ...common,
    url: "/api/events",
    snapshotUrl: "/api/sources",
    user: "alice",
    share: false,
    cursor: "1-0",
    snapshotFirst: true,
    onEvent: () => {},
    onSnapshot: () => {},
  };
  const [given, read] = watched(options);
  const state: client.Snapshot = { success: true, user_id: "alice", cursor: "1-0", sources: [] };
  const world = new World(json(state), stream(frame("2-0")));
  const watch = (connect as InWorld<typeof connect>)(given, world);
  await settle();
  const declared: Each<keyof client.UserStream> = { cursor: true, close: true };
  same(Object.keys(watch), declared);
  assert.equal(watch.cursor, "2-0");
  watch.close();
  same(read, options);
});

Deno.test("resumeMessage() reads the options that are declared", async () => {
  const options: Required<client.ResumeOptions> = {
    ...common,
    url: "/api/messages",
    cursor: 6,
    signal: new AbortController().signal,
    onEvent: () => {},
  };
  const [given, read] = watched(options);
  const world = new World(stream('id: 7\ndata: {"type":"end"}\n\n'));
  const ending = await (resumeMessage as InWorld<typeof resumeMessage>)("m", given, world);
  assert.deepEqual(ending, { type: "end" });
  same(read, options);
});

Deno.test("the classes have the members that are declared", () => {
  const declared: Each<keyof client.EventStreamParser> = { push: true };
  same(methods(EventStreamParser), declared);
  const own: Each<Exclude<keyof client.StreamStopped, "message" | "stack" | "cause">> = {
    name: true,
    reason: true,
    status: true,
    code: true,
  };
  const Stopped = StreamStopped as unknown as new (reason: string) => object;
  same(Object.keys(new Stopped("over")), own);
});

Deno.test("<event-toasts> has the members that are declared", async () => {
  Object.assign(globalThis, { HTMLElement: class {}, customElements: { define: () => {} } });
  const module = await import("../../web/static/event-toasts.js");
  const declared: Each<Exclude<keyof EventToasts, keyof HTMLElement>> = {
    token: true,
    paint: true,
    take: true,
    showUpload: true,
    askAgain: true,
  };
  const ofTheBrowser = /Callback$/;
  same(Object.keys(module), { EventToasts: true });
  same(methods(module.EventToasts).filter((name) => !ofTheBrowser.test(name)), declared);
});

function methods(made: { prototype: object }): string[] {
  return Object.getOwnPropertyNames(made.prototype).filter((name) => name !== "constructor");
}
