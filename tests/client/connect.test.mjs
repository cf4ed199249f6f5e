import assert from "node:assert/strict";
import test from "node:test";

import { connect } from "../../web/static/eventstream.js";
import { World, frame, json, openStream, settle, stream } from "./world.mjs";

const KEY = "eventstream.cursor:/api/events:alice";

/** A client of this world that keeps what it was told. */
function watch(world, options = {}) {
  const seen = [];
  const states = [];
  const onEvent = (event) => void seen.push(event.id);
  const onState = (state) => void states.push(state);
  const client = connect({ onEvent, onState, ...options }, world);
  return { client, seen, states, last: () => states.at(-1), names: () => states.map((s) => s.state) };
}

const cursors = (world) => world.requests.map(({ headers }) => headers["Last-Event-ID"]);
const truncated = (reason, cursor) =>
  `data: ${JSON.stringify({ type: "backlog.truncated", payload: { reason, cursor } })}\n\n` +
  `id: ${cursor}\n\n`;

test("each event reaches the handler once, and a lost connection goes on from the last", async () => {
  const world = new World(
    stream("retry: 2000\n\n" + frame("5-0") + frame("5-1")),
    stream(frame("5-1") + frame("5-0") + frame("6-0")),
  );
  const { seen, states } = watch(world, { cursor: "4-0" });
  await settle();
  assert.deepEqual(seen, ["5-0", "5-1"]);
  const { state, reason, until } = states.at(-1);
  assert.deepEqual({ state, reason, until }, { state: "waiting", reason: "ended", until: 1_002_000 });
  await world.advance(2000);
  assert.deepEqual(seen, ["5-0", "5-1", "6-0"]);
  assert.deepEqual(cursors(world), ["4-0", "5-1"]);
});

test("an id without data moves the cursor and calls no handler", async () => {
  const world = new World(stream("retry: 100\n\nid: 9-0\n\n"));
  const { client, seen } = watch(world, { user: "alice" });
  await world.advance(100);
  assert.deepEqual(seen, []);
  assert.equal(client.cursor, "9-0");
  assert.equal(world.kept.get(KEY), "9-0");
  assert.deepEqual(cursors(world), [undefined, "9-0"]);
});

test("the cursor moves only when the handler is done, and the next event waits for it", async () => {
  const world = new World(stream(frame("5-0") + frame("5-1")));
  const done = [];
  const begun = [];
  const onEvent = ({ id }) => {
    begun.push(id);
    return new Promise((resolve) => done.push(resolve));
  };
  connect({ user: "alice", onEvent }, world);
  await settle();
  assert.deepEqual(begun, ["5-0"]);
  assert.equal(world.kept.get(KEY), undefined);
  done[0]();
  await settle();
  assert.deepEqual(begun, ["5-0", "5-1"]);
  assert.equal(world.kept.get(KEY), "5-0");
});

test("a client that is closed meanwhile lets the handler finish and keeps its cursor", async () => {
  const world = new World(stream(frame("5-0") + frame("5-1")));
  let finish;
  const seen = [];
  const onEvent = ({ id }) => (seen.push(id), new Promise((resolve) => (finish = resolve)));
  const client = connect({ user: "alice", onEvent }, world);
  await settle();
  client.close();
  finish();
  await world.advance(60_000);
  assert.deepEqual(seen, ["5-0"]);
  assert.equal(world.kept.get(KEY), "5-0");
  assert.equal(world.requests.length, 1);
  assert.equal(world.timers, 0);
});

test("a kept cursor is where the next page goes on, and no tab moves it back", async () => {
  const world = new World(stream(frame("7-0")));
  world.kept.set(KEY, "6-0");
  const { seen } = watch(world, { user: "alice" });
  world.kept.set(KEY, "8-0"); // another tab was faster
  await settle();
  assert.deepEqual(cursors(world), ["6-0"]);
  assert.deepEqual(seen, ["7-0"]);
  assert.equal(world.kept.get(KEY), "8-0");
});

for (const storage of [
  () => {
    throw new DOMException("denied", "SecurityError");
  },
  () => null, // in a WebView
]) {
  test(`storage that is forbidden is done without: ${storage}`, async () => {
    const world = new World(stream(frame("7-0")));
    world.storage = storage;
    const { client, seen } = watch(world, { user: "alice" });
    await settle();
    assert.deepEqual(seen, ["7-0"]);
    assert.equal(client.cursor, "7-0");
  });
}

test("a slow tab's word of a reset takes the kept cursor back from no other", async () => {
  const event = { type: "backlog.truncated", payload: { reason: "journal_reset", cursor: "0-0" } };
  const world = new World(stream(`data: ${JSON.stringify(event)}\n\n`));
  world.kept.set(KEY, "6-0");
  const { client } = watch(world, { user: "alice" });
  world.kept.set(KEY, "9-0"); // another tab has been told, and is further
  await settle();
  assert.equal(client.cursor, "0-0");
  assert.equal(world.kept.get(KEY), "9-0");
});

test("a handler's fault is reported and does not stop the stream", async () => {
  const world = new World(stream(frame("5-0") + frame("5-1")));
  const seen = [];
  const onEvent = ({ id }) => {
    seen.push(id);
    throw new Error("the page's own");
  };
  connect({ onEvent }, world);
  await settle();
  assert.deepEqual(seen, ["5-0", "5-1"]);
  assert.equal(world.reported.length, 2);
});

test("data that is no JSON is reported and passed over", async () => {
  const world = new World(stream("id: 5-0\ndata: {\n\n" + frame("5-1")));
  const { seen } = watch(world);
  await settle();
  assert.deepEqual(seen, ["5-1"]);
  assert.equal(world.reported.length, 1);
});

test("waits grow with full jitter to thirty seconds, and begin anew after a success", async () => {
  const failures = Array.from({ length: 7 }, () => new TypeError("Failed to fetch"));
  const world = new World(...failures, stream(": connected\n\n"));
  world.chance = 1;
  const { states } = watch(world);
  await world.advance(121_000);
  const waits = states.filter(({ state }) => state === "waiting");
  assert.ok(waits.slice(0, 7).every(({ reason }) => reason === "unreachable"));
  const gaps = world.requests.slice(1).map(({ at }, index) => at - world.requests[index].at);
  assert.deepEqual(gaps.slice(0, 7), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  assert.equal(gaps[7], 1000);
});

test("a wait is drawn from nothing to its ceiling", async () => {
  const world = new World(new TypeError("Failed to fetch"));
  world.chance = 0;
  watch(world);
  await settle();
  await world.advance(0);
  assert.equal(world.requests.length, 2);
  assert.equal(world.requests[1].at, world.requests[0].at);
});

for (const status of [429, 503]) {
  test(`${status} waits as long as Retry-After says, whoever comes back meanwhile`, async () => {
    const refused = json({ error: "code", message: "Not now." }, status, { "Retry-After": "7" });
    const world = new World(refused);
    const { last } = watch(world);
    await settle();
    const { reason, code, message, until } = last();
    assert.deepEqual([reason, code, message], ["refused", "code", "Not now."]);
    assert.equal(last().status, status);
    assert.ok(until >= 1_007_000 && until <= 1_008_000);
    world.window.dispatchEvent(new Event("online"));
    await world.advance(6999);
    assert.equal(world.requests.length, 1);
    await world.advance(1001);
    assert.equal(world.requests.length, 2);
  });
}

test("Retry-After may be a date", async () => {
  const date = new Date(1_060_000).toUTCString();
  const world = new World(json({}, 503, { "Retry-After": date }));
  const { last } = watch(world);
  await settle();
  assert.ok(last().until >= 1_060_000);
});

test("a wait is never longer than a browser's timer can be, which would end it at once", async () => {
  const world = new World(json({}, 503, { "Retry-After": "99999999" }));
  const { last } = watch(world);
  await settle();
  assert.equal(last().until, 1_000_000 + 2 ** 31 - 1);
});

test("a refusal without Retry-After is backed off from", async () => {
  const world = new World(json({}, 502), json({}, 502));
  world.chance = 1;
  watch(world);
  await world.advance(3000);
  assert.deepEqual(world.requests.map(({ at }) => at - 1_000_000), [0, 1000, 3000]);
});

test("the network or the user that is back ends a wait at once", async () => {
  const world = new World(json({}, 503), json({}, 503));
  watch(world);
  await settle();
  world.window.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(world.requests.length, 2);
  world.document.visibilityState = "hidden";
  world.document.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(world.requests.length, 2);
  world.document.visibilityState = "visible";
  world.document.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(world.requests.length, 3);
});

test("a network that is back has an open connection replaced, which may be dead", async () => {
  const open = openStream();
  const world = new World(open.response, openStream().response);
  watch(world);
  await world.advance(1);
  world.window.dispatchEvent(new Event("online"));
  await world.advance(0);
  assert.equal(world.requests.length, 2);
  assert.ok(world.requests[0].signal.aborted);
});

test("three keepalives without a byte, and the connection is taken for lost", async () => {
  const open = openStream();
  const world = new World(open.response);
  const { last } = watch(world, { keepaliveMs: 15_000 });
  await world.advance(44_000);
  open.send(": keepalive\n\n");
  await world.advance(44_999);
  assert.equal(world.requests.length, 1);
  await world.advance(1);
  assert.equal(last().reason, "silent");
  assert.ok(world.requests[0].signal.aborted);
  await world.advance(1000);
  assert.equal(world.requests.length, 2);
});

test("a tab that has slept through the silence reconnects when it is looked at", async () => {
  const world = new World(openStream().response, openStream().response);
  watch(world, { keepaliveMs: 15_000 });
  await settle();
  world.sleep(45_000);
  world.document.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(world.requests.length, 1, "as long is allowed");
  world.sleep(1);
  world.document.dispatchEvent(new Event("visibilitychange"));
  await world.advance(0);
  assert.equal(world.requests.length, 2);
});

test("a server that never answers is asked again", async () => {
  const world = new World();
  const { last } = watch(world, { keepaliveMs: 1000 });
  await world.advance(3000);
  assert.equal(last().reason, "silent");
  await world.advance(1000);
  assert.equal(world.requests.length, 2);
});

test("a slow handler is no silence of the server's", async () => {
  const open = openStream();
  const world = new World(open.response);
  open.send(frame("5-0"));
  connect({ keepaliveMs: 1000, onEvent: () => new Promise(() => {}) }, world);
  await world.advance(60_000);
  assert.equal(world.requests.length, 1);
});

test("401 asks for a fresh token once and goes on with it", async () => {
  const world = new World(json({ error: "token_expired" }, 401), stream(frame("5-0")));
  const asked = [];
  const token = async ({ refused }) => (asked.push(refused), refused ? "fresh" : "old");
  const { seen } = watch(world, { token });
  await settle();
  assert.deepEqual(asked, [false, true]);
  const sent = world.requests.map(({ headers }) => headers.Authorization);
  assert.deepEqual(sent, ["Bearer old", "Bearer fresh"]);
  assert.deepEqual(seen, ["5-0"]);
});

test("a fresh token that is refused too stops the stream, and says so", async () => {
  const no = () => json({ error: "not_authenticated", message: "Sign in." }, 401);
  const world = new World(no(), no());
  const { last } = watch(world, { token: () => "bad" });
  await world.advance(120_000);
  const expected = { reason: "unauthorized", status: 401, code: "not_authenticated" };
  assert.deepEqual(last(), { state: "stopped", ...expected, message: "Sign in." });
  assert.equal(world.requests.length, 2);
  assert.deepEqual(world.reported, []);
});

test("401 without a function to ask stops at once", async () => {
  const world = new World(json({ error: "token_expired" }, 401));
  const { client, last } = watch(world, { token: "old" });
  await settle();
  client.close();
  assert.equal(last().state, "stopped");
  assert.equal(last().code, "token_expired");
});

test("a token that can't be had now is asked for again later", async () => {
  const world = new World(stream(frame("5-0")));
  let asked = 0;
  const token = () => {
    if (asked++ === 0) throw new Error("the sign-in server is away");
    return "good";
  };
  const { seen, states } = watch(world, { token });
  await world.advance(1000);
  assert.ok(states.some(({ reason }) => reason === "no_token"));
  assert.deepEqual(seen, ["5-0"]);
});

const hanging = () => new Promise(() => {});

for (const snapshotFirst of [false, true]) {
  test(`a token function that hangs counts as none, snapshotFirst: ${snapshotFirst}`, async () => {
    const state = json({ success: true, cursor: "4-0", sources: [] });
    const world = new World(...(snapshotFirst ? [state] : []), stream(frame("5-0")));
    let asked = 0;
    const token = () => (asked++ ? "good" : hanging());
    const { seen, last } = watch(world, { token, snapshotFirst, keepaliveMs: 1000 });
    await world.advance(2999);
    assert.deepEqual([last().state, asked], ["connecting", 1]);
    await world.advance(1);
    assert.deepEqual([last().state, last().reason], ["waiting", "no_token"]);
    assert.equal(last().message, "no answer");
    await world.advance(1000);
    assert.deepEqual(seen, ["5-0"]);
  });
}

test("a token function that hangs is asked again when the network or the user is back", async () => {
  const world = new World(stream(frame("5-0")));
  let asked = 0;
  const token = () => (asked++ < 2 ? hanging() : "good");
  const { seen } = watch(world, { token, keepaliveMs: 1000 });
  await world.advance(1);
  world.window.dispatchEvent(new Event("online"));
  await world.advance(0);
  assert.equal(asked, 2);
  world.sleep(3001);
  world.document.dispatchEvent(new Event("visibilitychange"));
  await world.advance(0);
  assert.equal(asked, 3);
  assert.deepEqual(seen, ["5-0"]);
});

test("a client that is closed waits for no token", async () => {
  const world = new World();
  const { client, last } = watch(world, { token: hanging });
  await settle();
  client.close();
  await world.advance(120_000);
  assert.equal(last().reason, "closed");
  assert.equal(world.timers, 0);
  assert.equal(world.requests.length, 0);
});

test("another refusal stops the stream, with its reason", async () => {
  const world = new World(json({ error: "unknown_host", message: "Not here." }, 403));
  const { last } = watch(world);
  await world.advance(120_000);
  assert.deepEqual([last().state, last().reason, last().code], ["stopped", "refused", "unknown_host"]);
  assert.equal(world.requests.length, 1);
});

test("a page in place of the stream is passed by, as a captive portal's is", async () => {
  const page = new Response("<html>", { headers: { "Content-Type": "text/html" } });
  const world = new World(page, stream(frame("5-0")));
  const { seen, states } = watch(world);
  await world.advance(1000);
  assert.ok(states.some(({ reason }) => reason === "not_a_stream"));
  assert.deepEqual(seen, ["5-0"]);
});

test("what the server says of an ending is the reason of the wait", async () => {
  const world = new World(stream("retry: 3000\n: token_expired\n\n"));
  const { last } = watch(world);
  await settle();
  assert.deepEqual([last().reason, last().until], ["token_expired", 1_003_000]);
});

test("a replay is catching up until nothing comes for a moment", async () => {
  const open = openStream();
  const world = new World(open.response);
  const { names } = watch(world, { cursor: "1-0" });
  open.send(frame("5-0"));
  await world.advance(99);
  open.send(frame("5-1"));
  await world.advance(99);
  assert.deepEqual(names(), ["connecting", "catching_up"]);
  await world.advance(1);
  assert.deepEqual(names(), ["connecting", "catching_up", "live"]);
});

test("an event from after the opening is live, also where there is never quiet", async () => {
  const open = openStream();
  const world = new World(open.response);
  const { names } = watch(world, { cursor: "1-0" });
  open.send(frame("1000500-0"));
  await settle();
  assert.equal(names().at(-1), "catching_up");
  open.send(frame("1001001-0"));
  await settle();
  assert.equal(names().at(-1), "live");
});

test("a connection without a cursor is live as soon as it is open", async () => {
  const world = new World(openStream().response);
  const { names } = watch(world);
  await settle();
  assert.deepEqual(names(), ["connecting", "live"]);
});

test("after a truncation the state is handed on, and the stream goes on from its cursor", async () => {
  const source = { type: "source.ingest.progress" };
  const rest = frame("20-0", source) + frame("20-1") + frame("30-0", source) + frame("31-0", source);
  const world = new World(
    stream("retry: 100\n\n" + truncated("trimmed", "19-0") + rest),
    json({ success: true, cursor: "30-0", sources: [{ name: "a" }] }),
  );
  const snapshots = [];
  const onSnapshot = (state, event) => void snapshots.push([state.cursor, event.payload.reason]);
  const { seen } = watch(world, { cursor: "5-0", onSnapshot, token: "good" });
  await settle();
  assert.deepEqual(snapshots, [["30-0", "trimmed"]]);
  assert.deepEqual(seen, ["20-1", "31-0"], "what the state holds is not said again, others are");
  assert.equal(world.requests[1].url, "/api/sources");
  assert.equal(world.requests[1].headers.Authorization, "Bearer good");
  await world.advance(100);
  assert.equal(cursors(world)[2], "31-0");
});

test("a journal that was reset moves the cursor back, the kept one too", async () => {
  const world = new World(
    stream(truncated("journal_reset", "2-0") + frame("3-0")),
    json({ success: true, cursor: "2-0", sources: [] }),
  );
  world.kept.set(KEY, "900-0");
  const { seen } = watch(world, { user: "alice", onSnapshot: () => {} });
  await settle();
  assert.deepEqual(seen, ["3-0"]);
  assert.equal(world.kept.get(KEY), "3-0");
});

test("a truncation whose state can't be fetched is met again", async () => {
  const cut = () => stream(truncated("trimmed", "19-0") + frame("20-0"));
  const state = json({ success: true, cursor: "19-0", sources: [] });
  const world = new World(cut(), json({}, 503, { "Retry-After": "2" }), cut(), state);
  const snapshots = [];
  const onSnapshot = ({ cursor }) => void snapshots.push(cursor);
  const { client, seen } = watch(world, { cursor: "5-0", onSnapshot });
  await settle();
  assert.equal(client.cursor, "5-0");
  await world.advance(3000);
  assert.deepEqual(snapshots, ["19-0"]);
  assert.deepEqual(seen, ["20-0"]);
});

test("without a handler for the state the truncation itself is handed on", async () => {
  const world = new World(stream(truncated("trimmed", "19-0") + frame("20-0")));
  const types = [];
  connect({ cursor: "5-0", onEvent: ({ type }) => void types.push(type) }, world);
  await settle();
  assert.deepEqual(types, ["backlog.truncated", "test.event"]);
});

test("with snapshotFirst the state comes before the stream, which goes on from it", async () => {
  const state = json({ success: true, cursor: "8-0", sources: [] });
  const world = new World(new TypeError("Failed to fetch"), state, stream(frame("9-0")));
  const order = [];
  const onSnapshot = (_, truncation) => void order.push(["state", truncation]);
  const onEvent = ({ id }) => void order.push(id);
  connect({ snapshotFirst: true, onSnapshot, onEvent }, world);
  await world.advance(600);
  assert.deepEqual(order, [["state", null], "9-0"]);
  const asked = world.requests.map(({ url }) => url);
  assert.deepEqual(asked, ["/api/sources", "/api/sources", "/api/events"]);
  assert.equal(cursors(world)[2], "8-0");
});

test("with snapshotFirst a kept cursor still counts, but for what the state holds", async () => {
  const source = { type: "source.ingest.progress" };
  const missed = frame("6-0", source) + frame("6-1") + frame("9-0", source);
  const world = new World(json({ success: true, cursor: "8-0", sources: [] }), stream(missed));
  world.kept.set(KEY, "5-0");
  const { seen } = watch(world, { user: "alice", snapshotFirst: true });
  await settle();
  assert.equal(cursors(world)[1], "5-0");
  assert.deepEqual(seen, ["6-1", "9-0"]);
});

test("after a reset no state of before hides what comes", async () => {
  const reset = truncated("journal_reset", "1-0") + frame("2-0", { type: "source.ingest.queued" });
  const world = new World(json({ success: true, cursor: "800-0", sources: [] }), stream(reset));
  const types = [];
  connect({ snapshotFirst: true, onEvent: ({ type }) => void types.push(type) }, world);
  await settle();
  assert.deepEqual(types, ["backlog.truncated", "source.ingest.queued"]);
});

for (const wrong of [
  { url: "http://" },
  { url: "http://a.test/feed", token: "a\nb" },
  { url: "http://a.test/feed", token: () => "€" },
]) {
  test(`what no request can be made of is not tried again: ${JSON.stringify(wrong)}`, async (context) => {
    const fetch = async () => Promise.reject(new TypeError("fetch failed"));
    context.mock.method(globalThis, "fetch", fetch);
    const reported = new Promise((report) => (globalThis.reportError = report));
    const state = await new Promise((say) => {
      const onState = (told) => told.state !== "connecting" && say(told);
      const client = connect({ ...wrong, onState });
      context.after(() => client.close());
    });
    assert.deepEqual([state.state, state.reason], ["stopped", "failed"]);
    assert.equal(state.message, (await reported).message);
  });
}

test("options are not needed, and may be a URL and a number", async () => {
  const world = new World(openStream().response, openStream().response);
  connect(undefined, world);
  await settle();
  const client = connect({ url: new URL("https://a.test/api/events"), cursor: 0 }, world);
  await settle();
  assert.deepEqual(world.requests.map(({ url }) => url), ["/api/events", "https://a.test/api/events"]);
  assert.deepEqual(cursors(world), [undefined, "0-0"]);
  assert.equal(client.cursor, "0-0");
});

test("the state lies beside the stream, whose query goes with it", async () => {
  for (const [url, state] of [
    ["/api/events?tenant=a", "/api/sources?tenant=a"],
    ["https://a.test/events/api/events", "https://a.test/events/api/sources"],
    ["events", "sources"],
  ]) {
    const world = new World();
    watch(world, { url, snapshotFirst: true });
    await settle();
    assert.equal(world.requests[0].url, state);
  }
});

for (const url of ["/api/events#x", "/feed", "/api/events/", "/my-events", "/feed?of=events"]) {
  test(`where the state lies has to be said of ${url}, if it may be asked for`, async () => {
    const refused = { name: "TypeError", message: /snapshotUrl/ };
    const onSnapshot = () => {};
    for (const asks of [{ snapshotFirst: true }, { onSnapshot }]) {
      const world = new World();
      assert.throws(() => connect({ url, ...asks }, world), refused);
      connect({ url, ...asks, snapshotUrl: "/state" }, world).close();
    }
    connect({ url }, new World()).close();
  });
}

test("a client that is closed says so once and asks no more", async () => {
  const world = new World(openStream().response);
  const { client, states } = watch(world);
  await settle();
  client.close();
  client.close();
  await world.advance(120_000);
  assert.deepEqual(states.filter(({ state }) => state === "stopped").length, 1);
  assert.equal(states.at(-1).reason, "closed");
  assert.equal(world.requests.length, 1);
  assert.ok(world.requests[0].signal.aborted);
  assert.equal(world.timers, 0);
});
