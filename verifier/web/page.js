/**
 * The page: whenever something is given or changed, it is all judged anew.
 *
 * Reading is in `fields.js`, judging in `judge.js`, showing in `view.js`. Nothing is kept from one verdict to the next.
 */

import { isUsable } from "./bytes.js";
import { UsageError, collect, hasFile, hasKeys, takeDrops } from "./fields.js";
import { judge } from "./judge.js";
import * as view from "./view.js";
import { MEANINGS, facts, notProven, refusalJson, verifiedJson } from "./words.js";

let round = 0; // the newest change; a verdict on an older one is not shown any more

async function update() {
  round += 1;
  const mine = round;
  const isCurrent = () => mine === round;
  if (!isUsable()) {
    wait("This page cannot run here", "Browsers compute hashes for pages from https:, localhost or a file alone.");
  } else if (!hasFile("proof")) {
    wait("Waiting for a proof", "Drop or choose a proof file to begin.");
  } else if (!hasKeys()) {
    wait("Waiting for a key", "Give a key that you trust: a proof that is checked without one proves nothing.");
  } else {
    try {
      const nowMs = Date.now();
      const verdict = await judge(collect);
      if (isCurrent()) show(verdict, nowMs);
    } catch (error) {
      if (isCurrent()) wait("This cannot be used", error instanceof UsageError ? error.message : `A fault: ${error}`);
      if (!(error instanceof UsageError)) throw error;
    }
  }
}

/** @param {string} title @param {string} sentence */
function wait(title, sentence) {
  view.showCard({ verdict: "waiting", title, sentence });
  view.showReport();
}

/** @param {import("./judge.js").Verdict} verdict @param {number} nowMs */
function show({ refusal, verified, assurance, steps }, nowMs) {
  if (refusal === null) {
    view.showCard({ verdict: "verified", title: `Verified: ${assurance}`, sentence: MEANINGS[assurance] });
    view.showReport(
      view.levelList(verified.levels), view.factList(facts(verified)), view.stepList(steps),
      view.openList(notProven(verified)), view.checkedAt(nowMs), view.jsonText(verifiedJson(verified, assurance)),
    );
  } else {
    const { message } = refusal;
    const sentence = `${message.slice(0, 1).toUpperCase()}${message.slice(1)}: ${refusal.meaning}.`;
    view.showCard({ verdict: "refused", title: `Refused: ${refusal.className}`, sentence });
    view.showReport(view.stepList(steps), view.checkedAt(nowMs), view.jsonText(refusalJson(refusal)));
  }
}

const form = document.getElementById("given");
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(update)); // the fields are emptied after this event
takeDrops(update);
update();
