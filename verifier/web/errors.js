/**
 * Why a proof is refused: the classes of kapsel_verifier/errors.py, with the same names, exit codes and meanings.
 *
 * A test in a browser holds them to those of Python. The message of an error says what is wrong, its `meaning` what
 * follows from it.
 */

/** Base of all refusals; `className`, `exitCode` and `meaning` belong to the class, the message to the case. */
export class VerificationError extends Error {
  static className = "VerificationError";
  static exitCode = 1;
  static meaning = "nothing is proven";

  /** @returns {string} the name of the class, as kapsel-verify gives it */
  get className() {
    return this.constructor.className;
  }

  /** @returns {number} the exit code that kapsel-verify ends with */
  get exitCode() {
    return this.constructor.exitCode;
  }

  /** @returns {string} what the refusal means for whoever asked */
  get meaning() {
    return this.constructor.meaning;
  }
}

/**
 * @param {string} className @param {number} exitCode @param {string} meaning @param {typeof VerificationError} Base
 * @returns {typeof VerificationError}
 */
function refusal(className, exitCode, meaning, Base = VerificationError) {
  return class extends Base {
    static className = className;
    static exitCode = exitCode;
    static meaning = meaning;
  };
}

export const MalformedProofError = refusal(
  "MalformedProofError", 10, "the file is damaged or is not a proof, and says nothing",
);
export const EmbeddedKeyError = refusal(
  "EmbeddedKeyError", 15, "a proof checked with a key of its own proves nothing, the key must come from elsewhere",
  MalformedProofError,
);
export const UnsupportedProofError = refusal(
  "UnsupportedProofError", 11, "this verifier cannot judge it, a newer one may",
);
export const MalformedLeafError = refusal(
  "MalformedLeafError", 12, "what the log recorded is no delivery attempt that can be read in one way only",
);
export const MalformedNoteError = refusal(
  "MalformedNoteError", 13, "the head is damaged, and nothing in it can be trusted",
);
export const MalformedKeyError = refusal(
  "MalformedKeyError", 14, "nothing was checked, the trusted key must be corrected first",
);
export const MalformedPolicyError = refusal(
  "MalformedPolicyError", 17, "nothing was checked, the policy must be corrected first",
);
export const MalformedTimestampError = refusal(
  "MalformedTimestampError", 18, "the timestamp is damaged or is none, and dates nothing",
);
export const UntrustedKeyError = refusal("UntrustedKeyError", 20, "whoever signed it is not somebody you trust");
export const SignatureError = refusal(
  "SignatureError", 21, "the head was changed after signing, or somebody pretends to be the log",
);
export const KeyValidityError = refusal("KeyValidityError", 22, "the key was not to be trusted at that time");
export const FutureHeadError = refusal(
  "FutureHeadError", 23, "the log or this machine has a wrong clock, or the date is forged",
);
export const StaleHeadError = refusal(
  "StaleHeadError", 26, "the log may have gone on without telling you, or somebody hands out an old proof",
);
export const QuorumError = refusal("QuorumError", 24, "the log may be showing this head to you alone");
export const AcknowledgementError = refusal(
  "AcknowledgementError", 25, "that the destination got this delivery is not proven",
);
export const HeadMismatchError = refusal(
  "HeadMismatchError", 30, "the proof was put together from parts that do not belong together",
);
export const InclusionError = refusal(
  "InclusionError", 31, "this attempt is not, in this form and at this place, in the log that was signed",
);
export const ConsistencyError = refusal(
  "ConsistencyError", 32, "the log was rewritten, or these heads are of different logs",
);
export const AnchorError = refusal(
  "AnchorError", 33, "nothing but the log's own word says when this head existed",
);
export const PayloadMismatchError = refusal(
  "PayloadMismatchError", 40, "the log recorded that something else was sent",
);
export const ExpectationError = refusal(
  "ExpectationError", 41, "the proof may be true, but it is not the proof of what you asked for",
);

/** An input is larger than its limit; no more than the limit was read. */
export class TooLargeError extends VerificationError {
  static className = "TooLargeError";
  static exitCode = 16;
  static meaning = "nothing was checked";

  /** @param {string} what @param {number} limit bytes */
  constructor(what, limit) {
    super(`${what} is larger than ${limit} bytes`);
  }
}
