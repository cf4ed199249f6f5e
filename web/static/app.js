/** The page: puts its parts together and lets them follow the user's events. */

import "/static/event-toasts.js";

import { Badge } from "/static/badge.js";
import { Chat } from "/static/chat.js";
import { DropZone } from "/static/dropzone.js";
import { byId } from "/static/elements.js";
import { Sources } from "/static/event-toasts/sources.js";
import { sprite } from "/static/event-toasts/sprite.js";
import { follow } from "/static/feed.js";
import { Search } from "/static/search.js";
import { SourceList } from "/static/source-list.js";
import { Uploads } from "/static/uploads.js";

const NOBODY_ASKED = "This page asks for nobody. In your application, its page sends the answer.";

document.body.prepend(sprite());

const toasts = byId("toasts");
const uploads = new Uploads((upload) => toasts.showUpload(upload));
toasts.addEventListener("upload-retry", ({ detail }) => uploads.retry(detail));
toasts.addEventListener("upload-cancel", ({ detail }) => uploads.abort(detail));
for (const answer of ["approve", "deny"]) {
  toasts.addEventListener(answer, ({ detail }) => toasts.askAgain(detail, NOBODY_ASKED));
}
new ResizeObserver(() => {
  document.body.style.setProperty("--toasts-height", `${toasts.offsetHeight}px`);
}).observe(toasts);

const sources = new Sources();
const list = new SourceList(sources);
const search = new Search();
sources.watch(({ runs, run, known }) => {
  if (runs) list.paint(runs);
  else list.showRun(run);
  if (run?.status === "completed" && !known) search.refresh();
});

new Chat();
new DropZone((source) => uploads.add(source));
follow({ sources, toasts, badge: new Badge() }, () => {
  search.recover();
  list.recover();
});
