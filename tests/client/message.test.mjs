import assert from "node:assert/strict";
import test from "node:test";

import { StreamStopped, resumeMessage } from "../../web/static/eventstream.js";
import { World, json, openStream, settle, stream } from "./world.mjs";

const ID = "6f1c0b3e-8f0a-4d2b-9a57-3a1f0c5d7e21";
const part = (number, event) => `id: ${number}\ndata: ${JSON.stringify(event)}\n\n`;
const said = (number, answer) => part(number, { type: "answer", answer });
const END = { type: "end" };

/** An answer being watched: its text as a page would have it. */
function read(world, options = {}) {
  const page = { text: "", states: [], numbers: [] };
  const onEvent = (event, number) => {
    page.numbers.push(number);
    if (event.type === "restart") page.text = "";
    if (event.type === "answer") page.text += event.answer;
  };
  const onState = (state) => void page.states.push(state);
  page.over = resumeMessage(ID, { onEvent, onState, ...options }, world);
  page.over.catch(() => {});
  return page;
}

test("an answer is read to its end, across a lost connection", async () => {
  const lost = openStream();
  const world = new World(lost.response, stream(said(1, "b") + said(2, "c") + part(3, END)));
  const page = read(world);
  lost.send("retry: 2000\n\n" + said(0, "a") + said(1, "b"));
  await settle();
  lost.break();
  await world.advance(2000);
  assert.deepEqual(await page.over, END);
  assert.equal(page.text, "abc");
  assert.deepEqual(page.numbers, ["0", "1", "2", "3"]);
  assert.equal(world.requests[0].url, `/api/messages/${ID}/events`);
  assert.equal(world.requests[0].headers["Last-Event-ID"], undefined);
  assert.equal(world.requests[1].headers["Last-Event-ID"], "1");
  assert.deepEqual([page.states.at(-1).state, page.states.at(-1).reason], ["stopped", "over"]);
  assert.equal(world.timers, 0);
});

test("an answer goes on from a number that the page has kept", async () => {
  const world = new World(stream(said(8, "i") + part(9, END)));
  const page = read(world, { cursor: 7 });
  await page.over;
  assert.equal(world.requests[0].headers["Last-Event-ID"], "7");
  assert.equal(page.text, "i");
});

test("an end that a restart follows is not the end", async () => {
  const error = part(1, { type: "error", code: "producer_lost", error: "Gone." });
  const first = stream("retry: 10\n\n" + said(0, "a") + error + part(2, { type: "restart" }));
  const standing = json({ success: true, status: "writing", cursor: "2" });
  const world = new World(first, standing, stream(said(3, "b") + part(4, END)));
  const page = read(world);
  await world.advance(10);
  assert.deepEqual(await page.over, END);
  assert.equal(page.text, "b");
});

test("a truncation starts anew, from the first number", async () => {
  const cut = 'data: {"type":"backlog.truncated","payload":{"reason":"journal_reset","cursor":null}}\n\n';
  const world = new World(stream(cut + said(0, "a") + part(1, END)));
  const page = read(world, { cursor: "50" });
  await page.over;
  assert.equal(page.text, "a");
  assert.deepEqual(page.numbers, [null, "0", "1"]);
});

test("an error is an ending too", async () => {
  const error = { type: "error", code: "producer_failed", error: "It failed." };
  const world = new World(stream(part(0, error)));
  assert.deepEqual(await read(world).over, error);
});

test("an answer that was read to its end before is over, though nothing is sent", async () => {
  const endings = { finished: END, stopped: { type: "end", stopped: true } };
  endings.failed = { type: "error", code: "producer_lost" };
  for (const [status, ending] of Object.entries(endings)) {
    const standing = json({ success: true, status, cursor: "4", error: ending.code ?? null });
    const world = new World(stream("retry: 2000\n\n"), standing);
    const page = read(world, { cursor: "4" });
    assert.deepEqual(await page.over, ending);
    assert.equal(world.requests[1].url, `/api/messages/${ID}`);
  }
});

test("a server that stops in the middle of an answer is come back to", async () => {
  const standing = json({ success: true, status: "writing", cursor: "0" });
  const world = new World(stream("retry: 2000\n\n" + said(0, "a")), standing, stream(part(1, END)));
  const page = read(world);
  await world.advance(2000);
  assert.deepEqual(await page.over, END);
});

test("an answer that is not there rejects, with the server's code", async () => {
  const world = new World(json({ error: "not_found", message: "No such answer." }, 404));
  const page = read(world);
  await assert.rejects(page.over, (error) => {
    assert.ok(error instanceof StreamStopped);
    assert.deepEqual([error.status, error.code, error.message], [404, "not_found", "No such answer."]);
    return true;
  });
  assert.equal(page.states.at(-1).state, "stopped");
});

test("a refusal for now is waited for", async () => {
  const refused = json({ error: "unavailable" }, 503, { "Retry-After": "2" });
  const world = new World(refused, stream(part(0, END)));
  const page = read(world);
  await world.advance(3000);
  assert.deepEqual(await page.over, END);
});

test("a token function that hangs counts as none", async () => {
  const world = new World(stream(part(0, END)));
  let asked = 0;
  const token = () => (asked++ ? "good" : new Promise(() => {}));
  const page = read(world, { token, keepaliveMs: 1000 });
  await world.advance(4000);
  assert.ok(page.states.some(({ reason }) => reason === "no_token"));
  assert.deepEqual(await page.over, END);
});

test("a signal ends the watching, with its reason", async () => {
  const open = openStream();
  const world = new World(open.response);
  const controller = new AbortController();
  const page = read(world, { signal: controller.signal });
  open.send(said(0, "a"));
  await settle();
  controller.abort();
  await assert.rejects(page.over, { name: "AbortError" });
  assert.ok(world.requests[0].signal.aborted);
  assert.equal(world.timers, 0);
  assert.equal(page.text, "a");
});

for (const id of ["", ".", "..", null, undefined]) {
  test(`${JSON.stringify(id)} is refused as an id, since it would lead to another address`, async () => {
    const world = new World(json({}, 404));
    const refused = { name: "TypeError", message: /message id/ };
    await assert.rejects(resumeMessage(id, {}, world), refused);
    assert.equal(world.requests.length, 0);
  });
}

test("an address may be a URL and have a query, which stays at its end", async () => {
  for (const url of ["https://a.test/m?tenant=a", new URL("https://a.test/m/?tenant=a")]) {
    const standing = json({ success: true, status: "finished", cursor: "" });
    const world = new World(stream(""), standing);
    await read(world, { url }).over;
    const asked = world.requests.map((request) => request.url);
    const [events, state] = [`https://a.test/m/${ID}/events?tenant=a`, `https://a.test/m/${ID}?tenant=a`];
    assert.deepEqual(asked, [events, state]);
  }
});

test("options are not needed", async () => {
  for (const options of [undefined, { url: null, cursor: null }]) {
    const world = new World(stream(part(0, END)));
    assert.deepEqual(await resumeMessage(ID, options, world), END);
    const [{ url, headers }] = world.requests;
    assert.deepEqual([url, headers["Last-Event-ID"]], [`/api/messages/${ID}/events`, undefined]);
  }
});

test("a token that no header can hold rejects, and the stop is said", async (context) => {
  const fetch = async () => Promise.reject(new TypeError("fetch failed"));
  context.mock.method(globalThis, "fetch", fetch);
  const states = [];
  const onState = (state) => void states.push(state);
  const url = "http://a.test/m";
  const over = resumeMessage(ID, { url, token: "€", onState, signal: AbortSignal.timeout(1000) });
  await assert.rejects(over, TypeError);
  const { state, reason, message } = states.at(-1);
  assert.deepEqual([state, reason], ["stopped", "failed"]);
  assert.ok(message);
});

test("a signal that is aborted before opens nothing", async () => {
  const world = new World();
  await assert.rejects(read(world, { signal: AbortSignal.abort() }).over, { name: "AbortError" });
  assert.equal(world.requests.length, 0);
});
