/**
 * Elements built in code. Text goes in as text only, so a file name is never markup.
 */

const SVG = "http://www.w3.org/2000/svg";

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
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
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
  if (node.textContent !== text) node.textContent = text;
}
