"""What can come of one try, as values: the sender makes them, `retry` and `circuit` decide by them.

Each has a stable `name` (the outcome of an attempt) and a stable `reason` code. What a code means, and whose fault it
is, stands in kapsel_store.reasons.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal

from kapsel_egress.verdicts import Denied

UnreachableReason = Literal[
    "dns",  # the name does not resolve
    "connect_refused",  # nobody listens
    "connect_failed",  # no route, network unreachable, and the like
    "tls",  # the handshake failed
    "certificate",  # the certificate is not one we trust for this name
    "reset",  # the connection broke before there was an answer
    "bad_response",  # what came back is not HTTP, or its head is too large
]
UnacknowledgedReason = Literal[
    "acknowledgement_missing",  # it answered 2xx and did not sign
    "acknowledgement_invalid",  # what it signed is not this exchange, or the signature is wrong
    "acknowledgement_no_key",  # its keys could not be had from where it publishes them
]
ItemReason = Literal[
    "item_failed",  # it named it among those that failed
    "batch_answer_invalid",  # it named others, or nothing that can be read
]
ProxyReason = Literal[
    "proxy_unreachable",  # the proxy of the Relay cannot be reached, or speaks no HTTP
    "proxy_failed",  # it answered with an error of its own, or it answers nobody
    "proxy_refused",  # it made no tunnel: credentials, or rules of its own
]
UnsentReason = Literal[
    ProxyReason,
    "no_signing_key",  # no live version of the signing key can sign
    "filter_error",  # the destination's filter fails at this event
    "no_credential",  # a Secret that the destination names has no value that can be used
    "token_denied",  # the egress rules forbid the URL where access tokens come from
    "token_refused",  # the server of access tokens does not want this client, or what it asks for
    "token_unavailable",  # it could not be reached, or gave no token
    "transform_error",  # its transform does, or makes what cannot be sent
    "internal",  # a failure of our own; the log has its stack
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The destination took it: any 2xx."""

    name: ClassVar[str] = "delivered"
    status: int

    @property
    def reason(self) -> str:
        return f"status_{self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The destination answered, and not with 2xx. A redirect is a refusal: none is ever followed."""

    name: ClassVar[str] = "refused"
    status: int
    retry_after: timedelta | None = None
    token_replaced: bool = False  # 401 to an access token: the next try has another one

    @property
    def reason(self) -> str:
        return f"status_{self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailed:
    """The destination answered 2xx to a batch, and not for this delivery of it."""

    name: ClassVar[str] = "refused"
    status: int
    reason: ItemReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Unacknowledged:
    """The destination answered 2xx without the signature that its manifest requires: that it got it is not proven."""

    name: ClassVar[str] = "unacknowledged"
    status: int
    reason: UnacknowledgedReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """There was no answer, because no connection was made or it broke."""

    name: ClassVar[str] = "unreachable"
    reason: UnreachableReason
    detail: str | None = field(default=None, compare=False)  # what exactly, in the words of who found it


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """There was no answer in time."""

    name: ClassVar[str] = "timed_out"
    phase: Literal["connect", "response"]

    @property
    def reason(self) -> str:
        return f"{self.phase}_timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """Nothing was sent, or we cannot say, for a reason on our side."""

    name: ClassVar[str] = "unsent"
    reason: UnsentReason


Outcome = Delivered | Refused | ItemFailed | Unacknowledged | Unreachable | TimedOut | Denied | Unsent
