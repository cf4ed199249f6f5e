/**
 * The operator's page: everybody's streams, runs, events and the journal, as the JSON endpoints
 * tell them, again every few seconds while somebody looks.
 */

import { byId, setText } from "/static/elements.js";
import { Events } from "/static/operator/events.js";
import { Journal } from "/static/operator/journal.js";
import { Reading, useToken } from "/static/operator/readings.js";
import { Runs } from "/static/operator/runs.js";
import { Streams } from "/static/operator/streams.js";
import { timeOfDay } from "/static/operator/words.js";

const EVERY_MS = 3000;
const JOURNAL_EVERY_MS = 30_000;

const streams = new Streams(() => readings.streams.read());
const runs = new Runs(() => readings.runs.read());
const events = new Events();
const journal = new Journal();

const readings = {
  streams: new Reading(streams, EVERY_MS, paint),
  runs: new Reading(runs, EVERY_MS, paint),
  events: new Reading(events, EVERY_MS, paint),
  journal: new Reading(journal, JOURNAL_EVERY_MS, paint),
};
const all = Object.entries(readings);

function paint() {
  const refusal = all.map(([, reading]) => reading.refusal).find(Boolean);
  byId("refused").hidden = !refusal;
  const nothingYet = all.every(([, { asOf, silentSince }]) => !asOf && !silentSince);
  byId("readings").hidden = Boolean(refusal) || nothingYet;
  if (refusal) showRefusal(refusal);
  else showState();
  const shared = sharedTrouble();
  byId("outage").hidden = !shared;
  setText(byId("outage"), shared);
  for (const [name, reading] of all) {
    const isStale = String(reading.silentSince > 0);
    for (const shown of document.querySelectorAll(`[data-reading="${name}"]`)) {
      shown.dataset.stale = isStale;
    }
    setText(byId(`${name}-note`), standing(name, reading, shared));
  }
}

/** The sentence with which more than one reading fails: it is said once, above them all. */
function sharedTrouble() {
  const said = all.map(([, { trouble }]) => trouble?.message).filter(Boolean);
  return said.find((message, place) => said.indexOf(message) < place) ?? "";
}

function showRefusal({ status, message }) {
  showBadge("stopped", "Not shown");
  setText(byId("refused-title"), status === 401 ? "Please sign in" : "Not shown to you");
  setText(byId("refused-why"), message);
}

function showState() {
  const silent = all.map(([, reading]) => reading.silentSince).filter((since) => since > 0);
  if (silent.length === 0) showBadge("live", "Live");
  else showBadge("waiting", `Not answering since ${timeOfDay(Math.min(...silent))}`);
}

function showBadge(state, text) {
  byId("badge").dataset.state = state;
  setText(byId("badge").querySelector(".badge-text"), text);
}

function standing(name, { asOf, silentSince, trouble }, shared) {
  if (silentSince > 0) {
    if (trouble.message === shared) return asOf ? `As of ${timeOfDay(asOf)}` : "Not read yet";
    const shown = asOf ? `As of ${timeOfDay(asOf)}, not answering since` : "Not answering since";
    return `${shown} ${timeOfDay(silentSince)}. ${trouble.message}`;
  }
  const { renewedSeconds } = streams;
  return name === "streams" && renewedSeconds ? `Positions are up to ${renewedSeconds} s old` : "";
}

function readAll() {
  for (const [, reading] of all) {
    if (document.hidden) reading.rest();
    else reading.read();
  }
}

function lookWithToken() {
  useToken(byId("token").value);
  byId("token").value = "";
  readAll();
}

document.addEventListener("visibilitychange", readAll);
window.addEventListener("online", readAll);
byId("use-token").addEventListener("click", lookWithToken);
byId("token").addEventListener("keydown", ({ key }) => key === "Enter" && lookWithToken());
readAll();
