/** State first, then its changes: hands both to everything on the page that shows them. */

import { connect } from "/static/eventstream.js";

/**
 * Loads, connects, and goes on for as long as the page lives.
 * @param {object} shown
 * @param {import("/static/event-toasts/sources.js").Sources} shown.sources
 * @param {import("/static/event-toasts.js").EventToasts} shown.toasts
 * @param {import("/static/badge.js").Badge} shown.badge
 * @param {() => void} onLive the server answers, again or for the first time
 */
export function follow({ sources, toasts, badge }, onLive) {
  connect({
    snapshotFirst: true,
    onSnapshot(snapshot, truncation) {
      sources.paint(snapshot.sources);
      toasts.paint(snapshot, truncation);
    },
    onEvent(event) {
      sources.apply(event);
      toasts.take(event);
    },
    onState(state) {
      badge.follow(state);
      if (state.state === "live") onLive();
    },
  });
}
