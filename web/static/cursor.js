/** Cursors: positions in a user's stream, `milliseconds-sequence`. */

function parts(cursor) {
  const [ms, sequence = "0"] = cursor.split("-");
  return [Number(ms), Number(sequence)];
}

/** Whether an event with this id lies after the cursor; anything lies after no cursor. */
export function isAfter(id, cursor) {
  if (!cursor) return true;
  const [ms, sequence] = parts(id);
  const [floorMs, floorSequence] = parts(cursor);
  return ms > floorMs || (ms === floorMs && sequence > floorSequence);
}
