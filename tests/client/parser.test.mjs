import assert from "node:assert/strict";
import test from "node:test";

import { EventStreamParser, isAfter } from "../../web/static/eventstream.js";

const encoder = new TextEncoder();
const RECORDED =
  "\ufeffretry: 3271\n: connected\nid: 1718900000000-0\n\n" +
  'id: 1718900000001-0\ndata: {"name":"季度报告 🪿.txt"}\n\n' +
  ": keepalive\r\n" +
  "event: note\r\ndata: one\r\ndata:two\r\ndata\r\n\r\n" +
  "id: bad\0id\rdata: kept\r\r" +
  "id\ndata: cleared\n\n" +
  "retry: 12x\nunknown: field\ndata: last\n\n" +
  "data: never ended";
const EXPECTED = [
  { retryMs: 3271 },
  { comment: "connected" },
  { data: null, id: "1718900000000-0", hasId: true, type: "" },
  { data: '{"name":"季度报告 🪿.txt"}', id: "1718900000001-0", hasId: true, type: "" },
  { comment: "keepalive" },
  { data: "one\ntwo\n", id: "1718900000001-0", hasId: false, type: "note" },
  { data: "kept", id: "1718900000001-0", hasId: false, type: "" },
  { data: "cleared", id: "", hasId: true, type: "" },
  { data: "last", id: "", hasId: false, type: "" },
];

function parse(chunks) {
  const parser = new EventStreamParser();
  return chunks.flatMap((chunk) => parser.push(chunk));
}

test("a whole stream is parsed as the standard has it", () => {
  assert.deepEqual(parse([encoder.encode(RECORDED)]), EXPECTED);
});

test("a stream cut in two at any byte makes the same records", () => {
  const bytes = encoder.encode(RECORDED);
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(parse([bytes.subarray(0, cut), bytes.subarray(cut)]), EXPECTED, `at ${cut}`);
  }
});

test("a stream cut in three at any two bytes makes the same records", () => {
  const bytes = encoder.encode(RECORDED);
  for (let one = 0; one <= bytes.length; one++) {
    for (let two = one; two <= bytes.length; two++) {
      const chunks = [bytes.subarray(0, one), bytes.subarray(one, two), bytes.subarray(two)];
      assert.deepEqual(parse(chunks), EXPECTED, `at ${one} and ${two}`);
    }
  }
});

test("a stream in chunks of any size makes the same records, whatever ends its lines", () => {
  for (const end of ["\n", "\r", "\r\n"]) {
    const text = RECORDED.replaceAll("\r\n", "\n").replaceAll("\r", "\n").replaceAll("\n", end);
    const bytes = encoder.encode(text);
    for (let size = 1; size <= bytes.length; size++) {
      const chunks = [];
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
      assert.deepEqual(parse(chunks), EXPECTED, `${JSON.stringify(end)} by ${size}`);
    }
  }
});

test("a record is there with the carriage return that ends it, before any other byte", () => {
  const parser = new EventStreamParser();
  const [record] = parser.push(encoder.encode("data: now\r\r"));
  assert.equal(record.data, "now");
  assert.deepEqual(parser.push(encoder.encode("\ndata: next\n\n")).map(({ data }) => data), ["next"]);
});

test("data that is empty is an event all the same", () => {
  assert.deepEqual(parse([encoder.encode("data\n\n")]).map(({ data }) => data), [""]);
});

test("ids are compared by number, and no cursor is before all", () => {
  assert.ok(isAfter("10-0", "9-5"));
  assert.ok(isAfter("9-10", "9-9"));
  assert.ok(!isAfter("9-9", "9-9"));
  assert.ok(!isAfter("9-9", "10-0"));
  assert.ok(isAfter("0", ""));
  assert.ok(isAfter("10", "9"));
  assert.ok(isAfter("9-1", "9"));
});
