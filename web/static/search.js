/** The search box: hits from the user's own documents, each search replacing the one before. */

import { search } from "/static/api.js";
import { byId, element, icon, setText } from "/static/elements.js";
import { count } from "/static/event-toasts/words.js";

const PAUSE_MS = 180;

export class Search {
  #query = byId("query");
  #count = byId("search-count");
  #hits = byId("hits");
  #timer = 0;
  #running = new AbortController();
  #failure = null; // the Refusal that is shown in place of hits

  constructor() {
    this.#query.addEventListener("input", () => this.#soon());
    this.#query.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keydown", (event) => this.#shortcut(event));
    this.#showIdle();
  }

  /** Searches again, where there is something to search: more may be found now. */
  refresh() {
    if (this.#query.value.trim()) this.#search();
  }

  /** The server answers again: what failed for want of it is tried once more. */
  recover() {
    if (this.#failure?.passing) this.#search();
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#search(), PAUSE_MS);
  }

  #key(event) {
    if (event.key === "Enter") this.#search();
    if (event.key !== "Escape") return;
    this.#query.value = "";
    this.#search();
  }

  #shortcut(event) {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, [contenteditable]");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    event.preventDefault();
    this.#query.focus();
  }

  async #search() {
    clearTimeout(this.#timer);
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    this.#failure = null;
    const query = this.#query.value.trim();
    if (!query) return this.#showIdle();
    try {
      const hits = await search(query, signal);
      if (!signal.aborted) this.#show(query, hits);
    } catch (error) {
      if (error.name === "Refusal") this.#fail(error);
      else if (error.name !== "AbortError") throw error;
    }
  }

  #fail(refusal) {
    this.#failure = refusal;
    this.#showNote("failed", "The search failed", refusal.message);
  }

  #showIdle() {
    const hint = "Type a few words. Hits show where they were found.";
    this.#showNote("search", "Find any passage", hint);
  }

  #show(query, hits) {
    if (hits.length === 0) {
      this.#showNote("search", `Nothing found for “${query}”`, "Try fewer or other words.");
      return;
    }
    const found = count(hits.length, "passage");
    setText(this.#count, hits.length > 1 ? `${found}, best first` : found);
    this.#hits.replaceChildren(...hits.map(hitRow));
  }

  #showNote(art, title, text) {
    setText(this.#count, "");
    const note = element("p", { class: "empty-title" }, title);
    const row = element("li", { class: "empty" }, icon(art), note, element("p", {}, text));
    this.#hits.replaceChildren(row);
  }
}

function hitRow({ source_name, document_name, snippet }) {
  const fragments = snippet.map(({ text, hit }) => (hit ? element("mark", {}, text) : text));
  const names = [element("span", { class: "hit-document", title: document_name }, document_name)];
  if (source_name !== document_name) {
    names.push(element("span", { class: "hit-source", title: source_name }, `in ${source_name}`));
  }
  return element(
    "li",
    { class: "hit" },
    element("p", { class: "hit-names" }, icon("document"), ...names),
    element("p", { class: "hit-snippet" }, ...fragments),
  );
}
