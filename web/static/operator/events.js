/** The table of events by type: how many a second, and their course over the last minute. */

import { byId, element, setText } from "/static/elements.js";
import { cell, headCell, Rows, tableRow } from "/static/operator/rows.js";
import { count, number, rate } from "/static/operator/words.js";

const SVG = "http://www.w3.org/2000/svg";
const BAR = 8;
const HEIGHT = 20;

/** Bars for the counts of a minute, the latest last; that one is not over, and paler. */
class Course {
  node = document.createElementNS(SVG, "svg");

  constructor() {
    this.node.setAttribute("class", "course");
    this.node.setAttribute("aria-hidden", "true");
  }

  show(counts) {
    const most = Math.max(...counts);
    while (this.node.childElementCount < counts.length) {
      this.node.append(document.createElementNS(SVG, "rect"));
    }
    this.node.setAttribute("viewBox", `0 0 ${counts.length * BAR} ${HEIGHT}`);
    counts.forEach((value, place) => {
      const height = value === 0 ? 1 : Math.max(2, (value / most) * HEIGHT);
      const box = { x: place * BAR, y: HEIGHT - height, width: BAR - 2, height, rx: 1 };
      for (const [name, size] of Object.entries(box)) {
        this.node.children[place].setAttribute(name, size);
      }
    });
  }
}

class TypeRow {
  #name = element("span", { class: "type" });
  #rate = cell("number");
  #minute = cell("number");
  #course = new Course();
  node = tableRow("event", [
    ["Type", headCell(this.#name)],
    ["A second", this.#rate],
    ["Last minute", this.#minute],
    ["", cell("course-cell", this.#course.node)],
  ]);

  show(type) {
    this.node.dataset.type = type.type;
    setText(this.#name, type.type);
    setText(this.#rate, rate(type.per_second));
    setText(this.#minute, number(type.last_minute));
    this.#course.show(type.counts);
  }
}

export class Events {
  url = "/api/operator/events";
  #rows = new Rows(byId("events"), () => new TypeRow());

  show({ per_second: perSecond, types }) {
    setText(byId("figure-events"), rate(perSecond));
    setText(byId("figure-types"), `of ${count(types.length, "type")}`);
    this.#rows.paint(types, ({ type }) => type);
    byId("events").hidden = types.length === 0;
    byId("no-events").hidden = types.length > 0;
  }
}
