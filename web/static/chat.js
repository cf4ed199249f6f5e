/** Questions to the user's own documents: an answer as it is written, cut, resumed, stopped. */

import { ask, stopAnswer } from "/static/api.js";
import { byId, element, icon, setText, setTitle, spelt } from "/static/elements.js";
import { resumeMessage } from "/static/eventstream.js";

const KEPT = "eventstream.answer"; // of this tab: a reload goes on watching
const CONNECTION = { live: "live", catching_up: "live", waiting: "reconnecting" };
const STATES = {
  waiting: "Waiting for a worker",
  live: "Answering",
  reconnecting: "Reconnecting",
  cut: "Connection cut; the answer goes on without you",
  stopping: "Stopping",
  gone: "This answer is not kept any more",
};

export class Chat {
  #question = byId("question");
  #askButton = byId("ask");
  #answer = byId("answer");
  #title = byId("answer-question");
  #state = byId("answer-state");
  #text = byId("answer-text");
  #sources = byId("answer-sources");
  #cutButton = byId("answer-cut");
  #stopButton = byId("answer-stop");
  #connection = new AbortController();
  #id = "";
  #last = ""; // the number of the last event
  #ending = null; // the terminal event, until a restart
  #started = false;

  constructor() {
    this.#question.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) this.#ask();
    });
    this.#askButton.addEventListener("click", () => this.#ask());
    this.#cutButton.addEventListener("click", () => this.#toggleConnection());
    this.#stopButton.addEventListener("click", () => this.#stop());
    const kept = keptAnswer();
    if (kept) this.#watch(kept.id, kept.question);
  }

  async #ask() {
    const question = this.#question.value.trim();
    if (!question) return;
    this.#askButton.disabled = true;
    try {
      const { message_id: id } = await ask(question);
      inTab((storage) => storage.setItem(KEPT, JSON.stringify({ id, question })));
      this.#question.value = "";
      this.#watch(id, question);
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      this.#connection.abort();
      this.#clear();
      this.#showQuestion(question);
      this.#show("failed", error.message);
    } finally {
      this.#askButton.disabled = false;
    }
  }

  #watch(id, question) {
    this.#id = id;
    this.#last = "";
    this.#clear();
    this.#showQuestion(question);
    this.#show("waiting");
    this.#open();
  }

  async #open() {
    this.#connection.abort();
    this.#connection = new AbortController();
    const { signal } = this.#connection;
    try {
      await resumeMessage(this.#id, {
        cursor: this.#last,
        signal,
        onEvent: (event, number) => this.#take(event, number),
        onState: ({ state }) => this.#follow(CONNECTION[state]),
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.name !== "StreamStopped") throw error;
      if (error.status === 404) this.#show("gone");
      else this.#show("failed", error.message);
    }
  }

  #showQuestion(question) {
    setText(this.#title, question);
    setTitle(this.#title, question); // a long one is cut
    this.#answer.hidden = false;
  }

  #clear() {
    this.#text.replaceChildren();
    this.#sources.replaceChildren();
    this.#ending = null;
    this.#started = false;
  }

  #take(event, number) {
    this.#last = number ?? "";
    if (event.type === "restart") this.#clear();
    else if (event.type === "answer") this.#text.append(spelt(event.answer));
    else if (event.type === "source") this.#sources.append(sourceRow(event));
    else if (event.type === "end" || event.type === "error") this.#ending = event;
    this.#started = true;
    if (event.type === "error") this.#show("failed", event.error);
    else if (event.type === "end") this.#show(event.stopped ? "stopped" : "finished");
    else if (this.#answer.dataset.state !== "stopping") this.#show("live");
  }

  #follow(state) {
    if (this.#ending || !state) return;
    const still = state === "live" && !this.#started;
    if (state === "live" && this.#answer.dataset.state === "stopping") return;
    this.#show(still ? "waiting" : state);
  }

  #show(state, words) {
    const over = ["finished", "stopped", "failed", "gone"].includes(state);
    this.#answer.dataset.state = state;
    this.#answer.setAttribute("aria-busy", String(!over));
    const said = { finished: "Answered", stopped: "Stopped", ...STATES }[state];
    setText(this.#state, words ?? said ?? "");
    this.#cutButton.hidden = this.#stopButton.hidden = over;
    this.#stopButton.disabled = state === "stopping";
    setText(this.#cutButton, state === "cut" ? "Reconnect" : "Cut the connection");
  }

  #toggleConnection() {
    if (this.#answer.dataset.state === "cut") {
      this.#open();
      return;
    }
    this.#connection.abort();
    this.#show("cut");
  }

  async #stop() {
    const id = this.#id;
    try {
      if (this.#answer.dataset.state === "cut") this.#open();
      this.#show("stopping");
      await stopAnswer(id);
    } catch (error) {
      if (error.name !== "Refusal") throw error;
      if (id === this.#id && !this.#ending) this.#show("live", error.message);
    }
  }
}

// Anything may stand there: what is not an answer's id and its question is passed over.
function keptAnswer() {
  try {
    const kept = JSON.parse(inTab((storage) => storage.getItem(KEPT)));
    const isAnswer = [kept?.id, kept?.question].every((part) => part && typeof part === "string");
    return isAnswer ? kept : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

// Storage may be forbidden: then a reload forgets the answer.
function inTab(use) {
  try {
    return use(sessionStorage);
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

function sourceRow({ number, document_name: name, source_name: source, excerpt }) {
  const names = [element("span", { class: "hit-document", title: name }, `[${number}] ${name}`)];
  if (source !== name) names.push(element("span", { class: "hit-source" }, `in ${source}`));
  return element("li", { title: excerpt ?? "" }, icon("document"), ...names);
}
