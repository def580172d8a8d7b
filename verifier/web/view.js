/**
 * Shows a verdict: the card, how strong the proof is, the steps, what was recorded, and the same as JSON.
 *
 * `page.js` calls it. Everything from files reaches the page as text nodes, never as markup.
 */

import { instant } from "./words.js";

/** @typedef {{verdict: "waiting" | "verified" | "refused", title: string, sentence: string}} Card */

const STATES = { established: "yes", unchecked: "not checked", absent: "no" }; // as kapsel-verify says it
const OUTCOMES = { passed: "holds", refused: "refused", open: "not checked" };

/**
 * Makes an element; a class name may be null.
 * @param {string} tag @param {string | null} name @param {...(Node | string)} content @returns {HTMLElement}
 */
function make(tag, name, ...content) {
  const made = document.createElement(tag);
  if (name !== null) made.className = name;
  made.append(...content);
  return made;
}

/** @param {Card} card */
export function showCard({ verdict, title, sentence }) {
  document.getElementById("card").dataset.verdict = verdict;
  document.getElementById("verdict").textContent = title;
  document.getElementById("sentence").textContent = sentence;
  document.getElementById("announcement").textContent = `${title}. ${sentence}`;
}

/** @param {...(Node | null)} parts */
export function showReport(...parts) {
  document.getElementById("report").replaceChildren(...parts.filter((part) => part !== null));
}

/** @param {import("./levels.js").Level[]} levels @returns {Node} */
export function levelList(levels) {
  const items = levels.map(({ name, state, detail }) => {
    const item = make("li", null, make("strong", null, name), " ", make("span", "state", STATES[state]));
    item.append(make("p", null, detail));
    item.dataset.state = state;
    return item;
  });
  return make("section", null, make("h3", null, "How strong it is"), make("ul", "levels", ...items));
}

/** @param {import("./steps.js").Step[]} steps @returns {Node} */
export function stepList(steps) {
  const items = steps.map(({ title, outcome, detail }) => {
    // That a step holds is seen from its mark; only who hears the page needs the word.
    const state = make("span", outcome === "passed" ? "unseen" : "state", OUTCOMES[outcome]);
    const item = make("li", null, make("span", "title", title), " ", state);
    if (detail !== "") item.append(make("p", "detail", detail));
    item.dataset.outcome = outcome;
    return item;
  });
  return make("section", null, make("h3", null, "What was checked"), make("ol", "steps", ...items));
}

/** @param {[string, string][]} facts @returns {Node} */
export function factList(facts) {
  const pairs = facts.flatMap(([label, text]) => [make("dt", null, label), make("dd", null, text)]);
  return make("section", null, make("h3", null, "What the log recorded"), make("dl", null, ...pairs));
}

/** @param {string[]} missing @returns {Node} */
export function openList(missing) {
  const items = missing.map((text) => make("li", null, text));
  return make("section", null, make("h3", null, "What it does not prove"), make("ul", "open", ...items));
}

/** @param {object} value @returns {Node} */
export function jsonText(value) {
  const text = JSON.stringify(value, null, 2);
  const copy = make("button", null, "Copy");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  });
  return make("details", "json", make("summary", null, "As JSON, as kapsel-verify gives it"), copy, make("pre", null, text));
}

/** @param {number} nowMs @returns {Node} */
export function checkedAt(nowMs) {
  return make("p", "checked", `Checked at ${instant(nowMs)} by this computer's clock.`);
}
