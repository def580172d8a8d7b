/**
 * The rules of a verification one by one, with what came of each: how the page shows how far a proof got.
 *
 * `verify.js` takes the steps, `page.js` shows them. A step that was never taken is one that a refusal before it, or
 * something that was not given, has left out.
 */

/** @typedef {"passed" | "refused" | "open"} Outcome open: not checked */
/** @typedef {{title: string, outcome: Outcome, detail: string}} Step */

export class Steps {
  /** @param {Record<string, string>} titles by id, in the order in which they are shown */
  constructor(titles) {
    /** @type {Map<string, Step>} */
    this.all = new Map(Object.entries(titles).map(([id, title]) => [id, { title, outcome: "open", detail: "" }]));
  }

  /**
   * Takes one step: it has passed when `work` returns, and is refused when it throws.
   * @template Result
   * @param {string} id
   * @param {(say: (detail: string) => void) => Promise<Result>} work says what it found
   * @returns {Promise<Result>}
   */
  async take(id, work) {
    const step = this.all.get(id);
    step.outcome = "refused";
    const result = await work((detail) => (step.detail = detail));
    step.outcome = "passed";
    return result;
  }

  /** Says why a step is not taken. @param {string} id @param {string} detail */
  leave(id, detail) {
    this.all.get(id).detail = detail;
  }
}
