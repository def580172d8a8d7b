"""What answers about the log look like, and problems. What the verifier writes is described here and never written.

docs/proof-format.md says what the members of proofs, heads and keys mean; `openapi` describes these shapes.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from kapsel_console.codes import Code
from kapsel_console.shapes import Base64, Hex, Time

Lacking = Literal["not_integrated", "not_published", "not_anchored", "not_confirmed"]


class Head(TypedDict):
    """The newest head of a log."""

    tree_size: int
    root_hash: Hex
    timestamp: Time
    public_key: Hex


class Witness(TypedDict):
    """Who is to cosign, and when they cosigned the newest head."""

    name: str
    cosigned_at: Time | None


class Witnesses(TypedDict):
    """Who is to cosign the heads of a log."""

    quorum: int
    required: bool
    witnesses: list[Witness]


class Log(TypedDict):
    """A log and its newest head."""

    origin: str
    state: Literal["Active", "Frozen", "Closed"]
    continued_by: str | None
    read_at: str
    tree_size: int
    root_hash: Hex
    frozen_reason: str | None
    head: Head | None
    witnessing: Witnesses | None


class Logs(TypedDict):
    """Every log, and what waits for a leaf."""

    items: list[Log]
    waiting_attempts: int
    oldest_waiting_seconds: float


class SignedTreeHead(TypedDict):
    """A head in its small form."""

    version: int
    origin: str
    log_id: Hex
    key_id: Hex
    alg: str
    tree_size: int
    timestamp_ms: int
    root_hash: Hex
    signature: Hex


class ConsistencyProof(TypedDict):
    """That one size of a log is the beginning of another."""

    origin: str
    old_size: int
    new_size: int
    proof: list[Hex]


class TrustedKey(TypedDict):
    """A key of a log, and the dates of the heads that it may sign."""

    vkey: str
    not_before_ms: int | None
    not_after_ms: int | None
    succession: Base64 | None


class KeySet(TypedDict):
    """The public keys of a log, for kapsel-verify --keys."""

    keys: list[TrustedKey]


class Jwk(TypedDict):
    """The same key as a JSON Web Key (RFC 8037)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: Hex
    x: str
    origin: str
    nbf: NotRequired[int]
    exp: NotRequired[int]


class Jwks(TypedDict):
    """The public keys of a log as a JSON Web Key Set."""

    keys: list[Jwk]


class Cosignature(TypedDict):
    """That a witness has seen the head."""

    name: str
    key_id: Hex
    timestamp_s: int


class ProofAcknowledgement(TypedDict):
    """That the destination signed what it got."""

    base_b64: Base64
    key: Hex
    signature: Hex


class Proof(TypedDict):
    """The proof file of an attempt."""

    type: str
    version: int
    assurance: str
    leaf_index: int
    leaf_b64: Base64
    inclusion_proof: list[Hex]
    sth: SignedTreeHead
    checkpoint: str
    cosignatures: list[Cosignature]
    ots: Base64 | None
    acknowledgement: ProofAcknowledgement | None


class Waiting(TypedDict):
    """What a proof waits for; `Retry-After` says when to ask again."""

    status: Lacking
    detail: str
    held: Annotated[bool, Field(description="true: this does not come by itself.")]


class Mistake(TypedDict):
    """One field of a manifest that cannot be carried out."""

    field: str
    wrong: str
    allowed: str


class Problem(TypedDict):
    """What went wrong (RFC 9457). The code stays; title and detail are for people."""

    type: str
    title: str
    status: int
    detail: str
    code: Code
    correlation_id: str
    problems: NotRequired[Annotated[list[Mistake], Field(description="With replay_invalid.")]]
    tree_size: NotRequired[Annotated[int, Field(description="With not_published: the newest size.")]]
    erased: NotRequired[Annotated[bool, Field(description="With leaf_erased.")]]
    leaf_index: NotRequired[Annotated[int, Field(description="With leaf_erased.")]]
    leaf_hash: NotRequired[Annotated[Hex, Field(description="With leaf_erased: it still stands in the log.")]]
