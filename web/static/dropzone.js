/** Where files come in: dropped anywhere on the page, or picked. One drop is one source. */

import { apart, readDrop, readPicker } from "/static/dropped.js";
import { byId } from "/static/elements.js";

export class DropZone {
  #zone = byId("dropzone");
  #separate = byId("separate");
  #onSource;
  #depth = 0;

  /** @param {(source: {name: string, files: object[]}) => void} onSource */
  constructor(onSource) {
    this.#onSource = onSource;
    this.#picker(byId("choose-files"), byId("files"));
    this.#picker(byId("choose-folder"), byId("folder"));
    addEventListener("dragenter", (event) => this.#hover(event, 1));
    addEventListener("dragleave", (event) => this.#hover(event, -1));
    addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => this.#drop(event));
  }

  #picker(button, input) {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#take(readPicker(input));
      input.value = ""; // the same file can be picked again
    });
  }

  // Every child that the pointer passes fires a pair of its own; the depth tells when it is out.
  #hover(event, step) {
    if (!hasFiles(event)) return;
    this.#depth += step;
    this.#zone.toggleAttribute("data-over", this.#depth > 0);
  }

  async #drop(event) {
    if (!hasFiles(event)) return;
    event.preventDefault();
    this.#depth = 0;
    this.#zone.removeAttribute("data-over");
    this.#take(await readDrop(event.dataTransfer));
  }

  #take(source) {
    const isSplit = this.#separate.checked && source.files.length > 0;
    const sources = isSplit ? apart(source) : [source];
    sources.forEach((each) => this.#onSource(each));
  }
}

const hasFiles = (event) => event.dataTransfer.types.includes("Files");
