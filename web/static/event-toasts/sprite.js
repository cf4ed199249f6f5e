/**
 * The icons of states, drawn once for a whole tree: `<use>` finds a symbol only in the document or
 * shadow that it is in itself, so each has a sprite of its own.
 */

const SVG = "http://www.w3.org/2000/svg";
const CIRCLE = "M10 2.75a7.25 7.25 0 1 1 0 14.5 7.25 7.25 0 0 1 0-14.5";

const PATHS = {
  queued: `${CIRCLE}M10 6.25V10l2.5 1.75`,
  running: "M10 2.75A7.25 7.25 0 0 1 17.25 10",
  uploading: "M10 13.5v-9M6.25 8 10 4.25 13.75 8M4 16.25h12",
  retrying: "M16.5 10a6.5 6.5 0 1 1-1.9-4.6L16.5 7.3M16.5 3.5v3.8h-3.8",
  stalled: `${CIRCLE}M8.25 7.5v5M11.75 7.5v5`,
  completed: `${CIRCLE}m-3.1 7.45 2.2 2.2 4.1-4.6`,
  partial: "M10 3.2 17.4 16H2.6zM10 8.2v3.4M10 13.7v.1",
  failed: `${CIRCLE}M10 6.25v4.5M10 13.6v.1`,
  cancelled: `${CIRCLE}m-5 12.25 10-10`,
  asking: `${CIRCLE}M7.9 8a2.15 2.15 0 1 1 3.2 1.9c-.75.4-1.1.8-1.1 1.6M10 13.9v.1`,
  note: "M5.25 13.75V9a4.75 4.75 0 0 1 9.5 0v4.75l1.5 1H3.75zM8.4 17.1a2 2 0 0 0 3.2 0",
  close: "m5.75 5.75 8.5 8.5M14.25 5.75l-8.5 8.5",
  chevron: "m5.5 7.75 4.5 4.5 4.5-4.5",
};
const FAINT = { running: CIRCLE }; // behind the path

/** All icons, to be put somewhere into the tree that uses them. */
export function sprite() {
  const svg = drawn("svg", { class: "sprite", width: 0, height: 0, "aria-hidden": "true" });
  for (const [name, d] of Object.entries(PATHS)) {
    const symbol = drawn("symbol", { id: `icon-${name}`, viewBox: "0 0 20 20" });
    if (FAINT[name]) symbol.append(drawn("path", { class: "faint", d: FAINT[name] }));
    symbol.append(drawn("path", { d }));
    svg.append(symbol);
  }
  return svg;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
