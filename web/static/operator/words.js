/** What the operator's page says about times, distances and sizes. */

export { bytes, count, label, runLine, since } from "/static/event-toasts/words.js";

const numbers = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** `1,204`. */
export const number = (value) => numbers.format(value);

/** A moment as a time of day: `12:03:22`. */
export const timeOfDay = (moment) => clock.format(new Date(moment));

/** How long it is since a moment: `12 s`, `4 min`, `3 h`, `2 d`. */
export function age(moment, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(moment)) / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** How far a stream is behind: `3.4 s`; `level` where it is not. */
export function lag({ lagging, behind_ms: ms }) {
  if (!lagging) return "level";
  return ms < 100 ? "catching up" : seconds(ms / 1000);
}

function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  return value < 100 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
}

/** A rate: `0.02`, `3.4`, `120`. */
export function rate(perSecond) {
  if (perSecond === 0) return "0";
  if (perSecond < 0.1) return perSecond.toFixed(2);
  return perSecond < 10 ? perSecond.toFixed(1) : number(Math.round(perSecond));
}

const BROWSERS = {
  "Edg/": "Edge",
  "Firefox/": "Firefox",
  "Chrome/": "Chrome",
  "Safari/": "Safari",
};
const SYSTEMS = {
  iPhone: "iPhone",
  iPad: "iPad",
  Android: "Android",
  Windows: "Windows",
  "Mac OS": "macOS",
  Linux: "Linux",
};

/** What a client calls itself, in short where it is a browser: `Chrome on macOS`. */
export function agent(text) {
  const [browser, system] = [BROWSERS, SYSTEMS].map((names) => {
    const mark = Object.keys(names).find((each) => text.includes(each));
    return names[mark];
  });
  return browser && system ? `${browser} on ${system}` : text || "an unnamed client";
}
