/** The table of users with open streams; each unfolds into its streams, which can be ended. */

import { byId, element, setText, setTitle } from "/static/elements.js";
import { confirm } from "/static/operator/confirm.js";
import { ask } from "/static/operator/readings.js";
import { cell, headCell, Rows, tableRow } from "/static/operator/rows.js";
import { age, agent, count, lag, number } from "/static/operator/words.js";

class UserRow {
  #fold = element("button", { class: "fold", type: "button", "aria-expanded": "false" });
  #streams = cell("number");
  #position = cell("position");
  #lag = element("span", { class: "chip" });
  #lagging = cell("number");
  #since = cell("number");
  node = tableRow("user", [
    ["User", headCell(this.#fold)],
    ["Streams", this.#streams],
    ["Position", this.#position],
    ["Lag", cell("", this.#lag)],
    ["Lagging", this.#lagging],
    ["Open for", this.#since],
    ["", cell("action")],
  ]);

  constructor(onFold) {
    this.#fold.addEventListener("click", () => onFold(this.user.user_id));
  }

  show({ user, isOpen }) {
    this.user = user;
    this.node.dataset.user = user.user_id;
    this.node.dataset.lags = String(user.lagging > 0);
    setText(this.#fold, user.user_id);
    this.#fold.setAttribute("aria-expanded", String(isOpen));
    setText(this.#streams, number(user.streams));
    const furthest = user.connections.find(({ message_id: message }) => !message);
    setText(this.#position, furthest?.cursor ?? "");
    setText(this.#lag, lag(user));
    this.#lag.dataset.look = user.lagging > 0 ? "wait" : "good";
    setText(this.#lagging, number(user.lagging));
    setText(this.#since, age(user.since));
    this.#since.title = new Date(user.since).toLocaleString("en");
  }
}

class StreamRow {
  #name = element("span", { class: "stream-agent" });
  #from = element("span", { class: "stream-from" });
  #position = cell("position");
  #lag = element("span", { class: "chip" });
  #since = cell("number");
  #end = element("button", { class: "text-button", type: "button" }, "End");
  node = tableRow("stream", [
    ["Stream", headCell(this.#name, this.#from)],
    ["", cell("number")],
    ["Position", this.#position],
    ["Lag", cell("", this.#lag)],
    ["", cell("number")],
    ["Open for", this.#since],
    ["", cell("action", this.#end)],
  ]);

  constructor(onChange) {
    this.#end.addEventListener("click", () => this.#confirm(onChange));
  }

  show({ user, stream }) {
    this.user = user;
    this.stream = stream;
    this.node.dataset.connection = stream.id;
    setText(this.#name, agent(stream.user_agent));
    setTitle(this.#name, stream.user_agent);
    const what = stream.message_id ? "an answer" : "events";
    setText(this.#from, [what, stream.address].filter(Boolean).join(" · "));
    setText(this.#position, stream.cursor);
    setText(this.#lag, lag(stream));
    this.#lag.dataset.look = stream.lagging ? "wait" : "good";
    setText(this.#since, age(stream.since));
    this.#since.title = new Date(stream.since).toLocaleString("en");
    this.#end.setAttribute("aria-label", `End this stream of ${user.user_id}: ${stream.id}`);
  }

  #confirm(onChange) {
    const { user, stream } = this;
    const query = new URLSearchParams({ user: user.user_id });
    confirm({
      title: "End this stream?",
      what:
        `${agent(stream.user_agent)} of ${user.user_id}, open for ${age(stream.since)}. ` +
        "A client that reconnects by itself comes back, and misses nothing.",
      verb: "End the stream",
      run: async () => {
        await ask(`/api/operator/streams/${encodeURIComponent(stream.id)}?${query}`, "DELETE");
        onChange();
      },
    });
  }
}

export class Streams {
  /** How old a position that is shown may be. */
  renewedSeconds = 0;
  #open = new Set();
  #answer = null;
  #rows;
  #find = byId("find-user");

  /** @param {() => void} read called where another reading is wanted at once */
  constructor(read) {
    const make = (item) =>
      item.stream ? new StreamRow(read) : new UserRow((user) => this.#fold(user));
    this.#rows = new Rows(byId("streams"), make);
    let timer = 0;
    this.#find.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(read, 250);
    });
  }

  /** Where to read: all, or the one user who is looked for. */
  get url() {
    const user = this.#find.value.trim();
    return `/api/operator/streams${user ? `?${new URLSearchParams({ user })}` : ""}`;
  }

  show(answer) {
    this.#answer = answer;
    this.renewedSeconds = answer.renewed_seconds;
    const { users, streams, lagging, watching, more } = answer;
    const sought = this.#find.value.trim();
    const looked = sought || `the ${count(watching.length, "user")} looked at`;
    const plus = more ? "+" : "";
    setText(byId("figure-streams"), number(streams) + plus);
    const all = more ? `of about ${count(users, "user")}` : `of ${count(users, "user")}`;
    setText(byId("figure-users"), sought ? `of ${sought}` : all);
    setText(byId("figure-lagging"), number(lagging) + plus);
    byId("lagging").dataset.look = lagging > 0 ? "wait" : "good";
    const level = lagging > 0 ? "behind their streams" : "all are level";
    setText(byId("figure-behind"), sought || more ? `of ${looked}` : level);
    byId("more-users").hidden = !more;
    setText(byId("more-users"), notAll(watching.length, users));
    this.#paint();
    const none = byId("no-streams");
    none.hidden = watching.length > 0;
    byId("streams").hidden = watching.length === 0;
    const nobody = more ? "None of those looked at has one open." : "Nobody has a stream open.";
    setText(none, sought ? `${sought} has no open stream.` : nobody);
  }

  #fold(user) {
    if (!this.#open.delete(user)) this.#open.add(user);
    this.#paint();
  }

  #paint() {
    const items = this.#answer.watching.flatMap((user) => {
      const isOpen = this.#open.has(user.user_id);
      const streams = isOpen ? user.connections.map((stream) => ({ user, stream })) : [];
      return [{ user, isOpen }, ...streams];
    });
    this.#rows.paint(items, ({ user, stream }) => JSON.stringify([user.user_id, stream?.id]));
  }
}

function notAll(looked, users) {
  return (
    `These are ${count(looked, "user")} of about ${number(users)}: those who lagged when they were ` +
    "last looked at, and others at random. Find a user asks for any."
  );
}
