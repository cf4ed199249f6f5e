/** The page: puts its parts together and lets them follow the user's events. */

import { Chat } from "/static/chat.js";
import { DropZone } from "/static/dropzone.js";
import { byId, setText } from "/static/elements.js";
import { Feed } from "/static/feed.js";
import { Search } from "/static/search.js";
import { SourceList } from "/static/source-list.js";
import { Sources } from "/static/sources.js";
import { Toasts } from "/static/toasts.js";
import { Uploads } from "/static/uploads.js";

const STATES = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  stopped: "Not connected",
};

function showState(state) {
  const badge = byId("badge");
  badge.dataset.state = state;
  setText(badge.querySelector(".badge-text"), STATES[state]);
}

const sources = new Sources();
const uploads = new Uploads((upload) => toasts.showUpload(upload));
const toasts = new Toasts(uploads);
const list = new SourceList(sources);
const search = new Search();

sources.watch(({ runs, run, known }) => {
  for (const view of [list, toasts]) {
    if (runs) view.paint(runs);
    else view.showRun(run, known);
  }
  if (run?.status === "completed" && !known) search.refresh();
});

new Chat();
new DropZone((source) => uploads.add(source));
new Feed(sources, showState).start();
