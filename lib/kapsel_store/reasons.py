"""Why a delivery is where it is: every reason code, whose fault it is, what it means, and what to do about it.

The one table of them. Deliverers take the fault of a try from here, for metrics and logs; the console tells undelivered
events and explains deliveries by it; commands and docs/undelivered.md show its words. So what an SRE reads at night is
the same everywhere, and a customer's outage is never counted among faults of ours.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Fault = Literal["none", "destination", "configuration", "ours"]
Kind = Literal["attempt", "end", "wait"]

FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
_STATUS: Final = re.compile(r"status_([1-9]\d\d)", re.ASCII)

_CLASS: Final = re.compile(r"status_[1-9]xx", re.ASCII)
NOTHING: Final = "Nothing needs to be done."
STATUSES: Final = "^status_[1-9]([0-9][0-9]|xx)$"  # the reasons of answers, one by one and by class, for CEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason code."""

    code: str
    # What came of a try; how a delivery ended without one; what one that is pending waits for, which is also what kept
    # one until its age was up that was never tried.
    kind: Kind
    fault: Fault
    means: str  # what happened, as the rest of a sentence whose subject is named
    advice: str  # what to do, as a sentence; empty: nothing


def _tried(code: str, fault: Fault, means: str, advice: str) -> Reason:
    return Reason(code=code, kind="attempt", fault=fault, means=means, advice=advice)


def _ended(code: str, fault: Fault, means: str, advice: str = "") -> Reason:
    return Reason(code=code, kind="end", fault=fault, means=means, advice=advice)


def _waits(code: str, fault: Fault, means: str, advice: str = "") -> Reason:
    return Reason(code=code, kind="wait", fault=fault, means=means, advice=advice)


_TABLE: Final = (
    _tried(
        "dns",
        "destination",
        "the name in the URL does not resolve",
        "Correct the URL in the manifest, or mend its DNS.",
    ),
    _tried(
        "connect_refused",
        "destination",
        "nobody listens at the address",
        "Ask whoever runs the destination to start it.",
    ),
    _tried(
        "connect_failed",
        "destination",
        "there is no way to the address: no route, or the network is down",
        "Check the network between deliverers and the destination.",
    ),
    _tried("tls", "destination", "the TLS handshake failed", "Ask whoever runs the destination which TLS it speaks."),
    _tried(
        "certificate",
        "destination",
        "the certificate is not trusted for the name in the URL",
        "Its last try says what is wrong: have it renewed, or make an authority of your own known to deliverers.",
    ),
    _tried("reset", "destination", "the connection broke before there was an answer", "Ask whoever runs it."),
    _tried("bad_response", "destination", "what came back is not HTTP, or its head is too large", "Check the URL."),
    _tried(
        "connect_timeout",
        "destination",
        "there was no connection in time",
        "Ask whoever runs it whether a firewall drops what comes from here.",
    ),
    _tried(
        "response_timeout",
        "destination",
        "it was connected, and did not answer within the timeout",
        "Ask whoever runs it to answer before it does the work, or raise `timeout`.",
    ),
    _tried(
        "acknowledgement_missing",
        "destination",
        "it answered 2xx, and did not sign what its manifest requires",
        "See docs/acknowledgements.md, or do not require it.",
    ),
    _tried(
        "acknowledgement_invalid",
        "destination",
        "it signed something else, at another time, or with another key",
        "The deliverer's log says which.",
    ),
    _tried(
        "acknowledgement_no_key",
        "destination",
        "its keys could not be fetched from where it publishes them",
        "Ask whoever runs it, or write its keys into the manifest.",
    ),
    _tried(
        "item_failed",
        "destination",
        "it answered 2xx to a batch, and named this delivery among those that failed",
        "Its answer may say why: `kapsel get attempts ID -o yaml`.",
    ),
    _tried(
        "batch_answer_invalid",
        "destination",
        "it answered 2xx to a batch, and which deliveries of it failed cannot be read from its answer",
        "See docs/batches.md for what it may answer.",
    ),
    _tried(
        "address_denied",
        "configuration",
        "the address is private or special, and the Relay does not allow it",
        "Allow its range in `egress.allowedCIDRs` of the Relay, or correct the URL.",
    ),
    _tried(
        "http_denied",
        "configuration",
        "the URL is plain http, and the Relay does not allow that",
        "Use https, or set `egress.allowHTTP` of the Relay.",
    ),
    _tried("url_invalid", "configuration", "the URL cannot be called", "Correct it in the manifest."),
    _tried(
        "header_invalid",
        "configuration",
        "a header of the destination cannot be sent",
        "Correct `headers` in the manifest.",
    ),
    _tried(
        "no_signing_key",
        "configuration",
        "no live version of its SigningKey can sign",
        "See `kapsel get keys`, and mend the SigningKey or its Secret.",
    ),
    _tried(
        "no_credential",
        "configuration",
        "a Secret that the destination names has no value that can be used",
        "See what the endpoint says of itself, and mend the Secret.",
    ),
    _tried(
        "token_denied",
        "configuration",
        "the Relay does not allow the URL where access tokens come from",
        "Correct `oauth2.tokenURL`, or allow its range in `egress.allowedCIDRs` of the Relay.",
    ),
    _tried(
        "token_refused",
        "configuration",
        "the server of access tokens refused the client, or what it asks for",
        "Check the Secrets, `scopes` and `audience` of `oauth2`.",
    ),
    _tried(
        "token_unavailable",
        "destination",
        "the server of access tokens could not be reached, or gave no token",
        "Ask whoever runs it.",
    ),
    _tried(
        "proxy_unreachable",
        "ours",
        "the proxy of the Relay cannot be reached, or speaks no HTTP",
        "See whether it runs, and whether `egress.proxy.url` of the Relay is right.",
    ),
    _tried(
        "proxy_failed",
        "ours",
        "the proxy of the Relay answered with an error of its own, or answers nobody",
        "See what its log says, and whether it has enough of what it needs.",
    ),
    _tried(
        "proxy_refused",
        "configuration",
        "the proxy of the Relay made no tunnel",
        "Check its credentials in `egress.proxy`, and whether its own rules allow the address.",
    ),
    _tried(
        "filter_error",
        "configuration",
        "its `filter` failed on this event",
        "Correct `filter` of the destination: the next try uses what stands there then.",
    ),
    _tried(
        "transform_error",
        "configuration",
        "its `transform` failed on this event",
        "Correct `transform` of the destination: the next try uses what stands there then.",
    ),
    _tried(
        "internal",
        "ours",
        "kapsel failed by a fault of its own",
        "The deliverer's log has its stack; please report it.",
    ),
    _ended(
        "never_tried",
        "ours",
        "its age was up before it could be tried at all",
        "See whether its limits are too low, and whether deliverers ran.",
    ),
    _ended(
        "lease_expired",
        "ours",
        "the deliverer that tried it died or hung, and what the destination made of it is not known",
        "See `kapsel get processes`, and why a deliverer ended.",
    ),
    _ended("event_gone", "ours", "the retention of its event was over before it was delivered", "Raise `retention`."),
    _ended("event_erased", "none", "its event was forgotten, as somebody asked for"),
    _ended("cancelled", "none", "somebody cancelled it", "Deliver it after all with `kapsel retry`."),
    _ended(
        "filtered",
        "none",
        "the destination's `filter` does not want this event",
        "If it should get it, correct `filter` of the destination.",
    ),
    _ended("destination_removed", "none", "its destination was taken out of the manifest"),
    _waits(
        "destination_suspended",
        "configuration",
        "the manifest suspends the destination",
        "Set `suspend: false` in the manifest to go on.",
    ),
    _waits(
        "destination_disabled",
        "destination",
        "the destination was stopped and gets nothing",
        "When it takes webhooks again: `kapsel resume`, or change its manifest.",
    ),
    _waits(
        "circuit_open",
        "destination",
        "its circuit is open, because too many tries failed: nothing is sent for a while",
        "It is probed by itself; `kapsel resume` closes the circuit at once.",
    ),
    _waits(
        "circuit_half_open",
        "destination",
        "its circuit is half-open: a few deliveries probe whether it is back",
        "It closes by itself when they arrive.",
    ),
    _waits("no_deliverer", "ours", "no deliverer is alive", "See `kapsel get processes`, and start one."),
    _waits(
        "rate_limited",
        "configuration",
        "it waits for a token of `rateLimit`",
        "Raise `rateLimit` of the destination if it can take more.",
    ),
    _waits(
        "circuit_recovering",
        "destination",
        "its circuit has closed again, and traffic is let back in by steps",
        "Nothing needs to be done: `recovery` and `drain` of its `circuitBreaker` say how fast.",
    ),
    _waits(
        "slots_held",
        "ours",
        "the free slots of `maxInFlight` belong to a deliverer that ended without giving them back",
        "Nothing needs to be done: they are free when its lease is over.",
    ),
    _waits(
        "places_taken",
        "ours",
        "the destination has its part of the places of each deliverer, and the last ones are for others",
        "More deliverers, a larger `KAPSEL_DELIVERER_CONCURRENCY`, or a shorter `timeout` of what is slow.",
    ),
    _waits(
        "concurrency_full",
        "configuration",
        "as many tries are under way at the destination as `maxInFlight` allows",
        "Raise `maxInFlight` of the destination if it can take more.",
    ),
    _waits(
        "order_key_blocked",
        "destination",
        "its order key is blocked, because a delivery before it was given up",
        "Retry that one with `kapsel retry`, or leave it out with `kapsel unblock`; `kapsel get blocked` lists them.",
    ),
    _waits("order_key_waits", "none", "others of its order key come before it", NOTHING),
    _waits("batch_gathers", "none", "deliveries gather that go in one request with it", NOTHING),
    _waits("retry_scheduled", "none", "its next try is not due yet", NOTHING),
    _waits("being_sent", "none", "a deliverer is trying it at this moment"),
    _waits("due", "ours", "it is due, and a deliverer will take it at any moment"),
)

REASONS: Final = {reason.code: reason for reason in _TABLE}


def reason(code: str) -> Reason:
    """Return what a code means; an answer's status is one of a class, and what a newer version says is told as such."""
    if (known := REASONS.get(code)) is not None:
        return known
    if (status := _STATUS.fullmatch(code)) is not None:
        return _answered(code, int(status[1]))
    return _tried(code, "ours", "the reason is one that this version does not know", "Use the commands of its version.")


def fault_of(code: str) -> Fault:
    """Return whose fault a reason is."""
    return reason(code).fault


def instead(code: str) -> str | None:
    """Return what is allowed instead of a text that is no reason code and no class of statuses; None: it is one."""
    if code in REASONS or _STATUS.fullmatch(code) or _CLASS.fullmatch(code):
        return None
    near = difflib.get_close_matches(code, [*REASONS, "status_4xx", "status_5xx"], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}one such as dns, status_503 or status_5xx; docs/undelivered.md has all of them"


def is_among(code: str, asked: Iterable[str]) -> bool:
    """Whether a reason code is one of those asked for, or of a class of them."""
    status = f"{code[:8]}xx" if _STATUS.fullmatch(code) else code
    return any(one in (code, status) for one in asked)


def pattern(code: str) -> str:
    """Return the pattern of LIKE that matches a reason code, or a class of statuses such as status_5xx."""
    escaped = code.replace("_", r"\_")
    return escaped.replace("x", "_") if _CLASS.fullmatch(code) else escaped


def patterns_of(fault: Fault) -> tuple[str, ...]:
    """Return the patterns of all reasons that are somebody's fault."""
    answered = ("status_1xx", "status_3xx", "status_4xx", "status_5xx", "status_6xx", "status_7xx", "status_8xx")
    codes = [one.code for one in _TABLE if one.fault == fault]
    return tuple(pattern(code) for code in (*codes, *((*answered, "status_9xx") if fault == "destination" else ())))


def shown(text: str) -> str:
    """Return a pattern as people write it."""
    return re.sub(r"\\_|_", lambda found: "_" if len(found[0]) == 2 else "x", text)


def _answered(code: str, status: int) -> Reason:
    if 200 <= status < 300:
        return _tried(code, "none", f"it took the webhook, with status {status}", "")
    says, advice = _STATUSES.get(status, _CLASSES.get(status // 100, _STRANGE))
    return _tried(code, "destination", f"it answered {status}: {says}", advice)


_ASK: Final = "Ask whoever runs the destination; `kapsel get attempt ID -o yaml` has what it answered."
_STRANGE: Final = ("no answer to a webhook", _ASK)
_CLASSES: Final = {
    3: ("a redirect, and none is ever followed", "Write the URL that it leads to into the manifest."),
    4: ("it does not want this request", _ASK),
    5: ("it failed", _ASK),
}
_STATUSES: Final = {
    401: ("it does not accept who is calling", "Check `signingKeyRef` and `headers`, with whoever runs it."),
    403: ("it does not accept who is calling", "Check `signingKeyRef` and `headers`, with whoever runs it."),
    404: ("there is nothing at the URL", "Check the path of the URL in the manifest."),
    405: ("the URL takes no POST", "Check the path of the URL in the manifest."),
    408: ("it waited too long for the request", _ASK),
    410: (
        "it is gone and wants no more, so the destination was stopped",
        "When it takes webhooks again: `kapsel resume`, or change its manifest.",
    ),
    413: ("the webhook is too large for it", _ASK),
    425: ("it is too early", NOTHING),
    429: ("it gets too much at once", "Lower `rateLimit` or `maxInFlight` of the destination."),
}
