/**
 * Elements built in code. Text goes in as text only, so a file name is never markup, and as it is
 * spelt: what would turn the order of its letters is shown as a mark.
 */

const SVG = "http://www.w3.org/2000/svg";

// Unicode's embeddings, overrides and isolates: with one, "\u202Etxt.exe" reads as "exe.txt".
const REORDERING = /[\u202A-\u202E\u2066-\u2069]/g;
const MARK = "\uFFFD";

/** A name or a text of others as it may be shown: in the order in which it is spelt. */
export const spelt = (text) => String(text ?? "").replace(REORDERING, MARK);

/** The element with this id; the page has it by construction. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element.
 * @param {string} tag
 * @param {Object<string, string|number|boolean|null>} attributes `true` sets a bare attribute;
 *   `false` and `null` leave it out.
 * @param {...(Node|string)} children strings become text nodes
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null) continue;
    made.setAttribute(name, value === true ? "" : spelt(value));
  }
  made.append(...children.map((child) => (child instanceof Node ? child : spelt(child))));
  return made;
}

/** An icon from the page's sprite, hidden from assistive technology. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "use"));
  setIcon(svg, name);
  return svg;
}

/** Turns an icon into another one of the sprite. */
export function setIcon(svg, name) {
  const href = `#icon-${name}`;
  if (svg.firstChild.getAttribute("href") !== href) svg.firstChild.setAttribute("href", href);
}

/** Writes text where it differs, so that screen readers and the renderer are left in peace. */
export function setText(node, text) {
  const shown = spelt(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** Says what a pointer that rests on a node is told. */
export function setTitle(node, text) {
  node.title = spelt(text);
}
