/** The one dialog that asks before something is ended, and says why it could not be. */

import { byId, setText } from "/static/elements.js";
import { focusNear } from "/static/operator/rows.js";

const dialog = byId("confirm");
const yes = byId("confirm-yes");
const refusal = byId("confirm-refusal");
let task = null;
let opener = null; // the button that asked, and where its row was

/**
 * Asks; where the answer is yes, does it, and closes once that is done.
 * @param {{title: string, what: string, verb: string, run: () => Promise<unknown>}} question
 */
export function confirm({ title, what, verb, run }) {
  task = run;
  setText(byId("confirm-title"), title);
  setText(byId("confirm-what"), what);
  setText(yes, verb);
  setText(refusal, "");
  const button = document.activeElement;
  const row = button.closest("tr");
  opener = row && { button, body: row.parentNode, place: row.sectionRowIndex };
  dialog.showModal();
}

yes.addEventListener("click", async () => {
  if (yes.getAttribute("aria-disabled") === "true") return;
  const asked = task;
  yes.setAttribute("aria-disabled", "true"); // not disabled: that would lose the focus
  try {
    await asked();
    if (task === asked) dialog.close();
  } catch (error) {
    if (error.name !== "Refusal") throw error;
    if (task === asked) setText(refusal, error.message);
  } finally {
    yes.setAttribute("aria-disabled", "false");
  }
});
byId("confirm-no").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  task = null;
  if (opener && !opener.button.isConnected) focusNear(opener.body, opener.place);
});
