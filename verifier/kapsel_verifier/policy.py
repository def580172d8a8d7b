"""Trust policies, C2SP tlog-policy: which logs, which witnesses, and how many of them are enough.

    log <vkey> [url]
    witness <name> <vkey> [url]
    group <name> all|any|<k> <member>...
    quorum <name>|none

An auditor writes one file and pins it: `verify` asks `Policy.judge` about the checkpoint of a proof, `kapsel audit`
about each head, and the attestor holds its own witnesses to the same rule (`quorum_of`). Names of witnesses and groups
mean something within the file only; what counts are keys. Pure, as everything here: reading the file is the caller's.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from kapsel_verifier import cosignature, strict
from kapsel_verifier.cosignature import Cosignature, WitnessKey
from kapsel_verifier.errors import (
    MalformedKeyError,
    MalformedPolicyError,
    QuorumError,
    TooLargeError,
    UntrustedKeyError,
)
from kapsel_verifier.note import Note, VerifierKey

MAX_POLICY_SIZE: Final = 262_144  # bytes
NO_QUORUM: Final = "none"
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BLANK: Final = re.compile(r"[ \t]+")
_Key = TypeVar("_Key", VerifierKey, WitnessKey)


class LogLine(NamedTuple):
    """A log whose heads count; its key is named after the log's origin."""

    key: VerifierKey
    url: str | None = None


class WitnessLine(NamedTuple):
    """A witness under the name it has in this file."""

    name: str
    key: WitnessKey
    url: str | None = None  # by custom the submission prefix


class Group(NamedTuple):
    """Witnesses, or groups of them, of which so many are needed."""

    name: str
    threshold: int
    members: tuple[str, ...]


class Judgement(NamedTuple):
    """What a policy says of a note that satisfies it."""

    log: VerifierKey | None  # the first listed log that signed it; None if the policy lists no log
    cosignatures: tuple[Cosignature, ...]  # by witnesses of the policy, all checked, needed for the quorum or not
    witnessed_at: int | None  # seconds since 1970-01-01 UTC: by then a whole quorum had signed; None without a quorum

    @property
    def witnessed(self) -> bool:
        """Say whether a quorum of witnesses vouches for the head; a policy may do without one."""
        return self.witnessed_at is not None


class Policy(NamedTuple):
    """A whole policy; `parse` makes it, so every name in it is defined and used as the format allows."""

    logs: tuple[LogLine, ...]
    witnesses: tuple[WitnessLine, ...]
    groups: tuple[Group, ...]
    quorum: str

    def judge(self, note: Note) -> Judgement:
        """Check a note by every key of the policy, and that a quorum has cosigned it.

        Raises QuorumError if too few witnesses have, UntrustedKeyError if logs are listed and none of them signed it
        under its own origin, SignatureError or MalformedNoteError if a line by a key of the policy is wrong. A policy
        without logs leaves the log's own signature to the caller.
        """
        log = self._signer(note) if self.logs else None
        found = cosignature.find(note, (witness.key for witness in self.witnesses))
        return Judgement(log, found, self.witnessed_at(found))

    def witnessed_at(self, found: Iterable[Cosignature]) -> int | None:
        """Return the time by which a quorum had cosigned, None if the policy demands none; raises QuorumError.

        `found` are checked cosignatures. The time is the earliest that the policy allows to believe: later
        cosignatures add nothing to what the first quorum said.
        """
        if self.quorum == NO_QUORUM:
            return None
        names = {(witness.key.name, witness.key.key_id): witness.name for witness in self.witnesses}
        signed: set[str] = set()
        for one in sorted(found, key=lambda item: item.timestamp):
            signed.add(names[one.name, one.key_id])
            if self.is_met_by(signed):
                return one.timestamp
        what = "the head is not cosigned by the quorum of the policy"
        raise QuorumError(what, tuple(sorted(signed)), self.missing(signed))

    def is_met_by(self, names: Collection[str]) -> bool:
        """Say whether cosignatures by the witnesses of these names (names of this file) make the quorum."""
        return self.quorum == NO_QUORUM or self.quorum in self._reached(names)

    def missing(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the witnesses below the quorum that are not among `names`, in the order of the file."""
        below, groups = {self.quorum}, {group.name: group for group in self.groups}
        for group in reversed(self.groups):  # members come before their groups
            if group.name in below:
                below.update(groups[group.name].members)
        return tuple(one.name for one in self.witnesses if one.name in below and one.name not in names)

    def encode(self) -> str:
        """Return the policy as text that `parse` reads back to the same."""
        return "".join(f"{line}\n" for line in self._lines())

    def _signer(self, note: Note) -> VerifierKey:
        origin = note.text.partition("\n")[0]
        keys = {(log.key.name, log.key.key_id): log.key for log in self.logs if log.key.name == origin}
        if not keys:
            raise UntrustedKeyError(f"the policy lists no log {strict.shown(origin)}")
        first = note.verify(keys.values())[0]
        return keys[first.name, first.key_id]

    def _reached(self, names: Collection[str]) -> set[str]:
        reached = {witness.name for witness in self.witnesses if witness.name in names}
        for group in self.groups:
            if sum(member in reached for member in group.members) >= group.threshold:
                reached.add(group.name)
        return reached

    def _lines(self) -> Iterator[str]:
        for log in self.logs:
            yield " ".join(("log", log.key.encode(), *_given(log.url)))
        for witness in self.witnesses:
            yield " ".join(("witness", witness.name, witness.key.encode(), *_given(witness.url)))
        for group in self.groups:
            yield " ".join(("group", group.name, str(group.threshold), *group.members))
        yield f"quorum {self.quorum}"


def parse(data: bytes | str) -> Policy:
    """Read a policy file; raises MalformedPolicyError with the number of the line, or TooLargeError."""
    encoded = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    if len(encoded) > MAX_POLICY_SIZE:
        raise TooLargeError("the policy", MAX_POLICY_SIZE)
    # The format takes names as opaque octets. Escaping what is not UTF-8 keeps different names different.
    text = encoded.decode("utf-8", "surrogateescape")
    if _FORBIDDEN.search(text):
        raise MalformedPolicyError("the policy has a control character other than tab and newline")
    if not text.endswith("\n"):
        # A policy whose end was cut off may read as another one.
        raise MalformedPolicyError("the policy does not end in a newline")
    reader = _Reader()
    for number, line in enumerate(text[:-1].split("\n"), 1):
        words = [word for word in _BLANK.split(line) if word]
        if words and not words[0].startswith("#"):
            reader.take(number, words)
    return reader.policy()


def quorum_of(witnesses: Iterable[WitnessLine], threshold: int) -> Policy:
    """Return the policy that any `threshold` of these witnesses make the quorum; 0 demands none.

    Raises MalformedPolicyError if names or keys are doubled, or there are fewer witnesses than that.
    """
    reader = _Reader()
    names = []
    for number, witness in enumerate(witnesses, 1):
        names.append(witness.name)
        reader.take(number, ["witness", witness.name, witness.key.encode(), *_given(witness.url)])
    if threshold == 0:
        reader.take(len(names) + 1, ["quorum", NO_QUORUM])
        return reader.policy()
    group = "quorum"
    while group in names:
        group += "-"
    reader.take(len(names) + 1, ["group", group, str(threshold), *names])
    reader.take(len(names) + 2, ["quorum", group])
    return reader.policy()


class _Reader:
    """Takes the lines of a policy in their order and refuses the first that the format does not allow."""

    def __init__(self) -> None:
        self._logs: dict[bytes, LogLine] = {}
        self._witnesses: dict[bytes, WitnessLine] = {}
        self._identities: set[tuple[str, bytes]] = set()  # key names and key ids of witnesses
        self._groups: list[Group] = []
        self._names: set[str] = set()
        self._members: set[str] = set()
        self._quorum: str | None = None

    def take(self, number: int, words: list[str]) -> None:
        """Take one line, given as its words."""
        what = f"line {number} of the policy"
        match words:
            case ["log", vkey, *url] if len(url) < 2:
                self._log(what, vkey, url)
            case ["witness", name, vkey, *url] if len(url) < 2:
                self._witness(what, name, vkey, url)
            case ["group", name, threshold, *members] if members:
                self._group(what, name, threshold, members)
            case ["quorum", name]:
                self._set_quorum(what, name)
            case ["log" | "witness" | "group" | "quorum" as keyword, *_]:
                raise MalformedPolicyError(f"{what} has too few or too many words for a {keyword}")
            case _:
                raise MalformedPolicyError(f"{what} does not begin with log, witness, group or quorum")

    def policy(self) -> Policy:
        """Return the whole; raises MalformedPolicyError if the quorum was not said."""
        if self._quorum is None:
            raise MalformedPolicyError("the policy has no quorum line")
        witnesses = tuple(self._witnesses.values())
        return Policy(tuple(self._logs.values()), witnesses, tuple(self._groups), self._quorum)

    def _log(self, what: str, vkey: str, url: list[str]) -> None:
        key = _key(VerifierKey.parse, what, vkey)
        if key.public_key in self._logs:
            raise MalformedPolicyError(f"{what} lists a log's key again")
        if key.public_key in self._witnesses:
            raise MalformedPolicyError(f"{what} lists a witness's key as that of a log")
        self._logs[key.public_key] = LogLine(key, *url)

    def _witness(self, what: str, name: str, vkey: str, url: list[str]) -> None:
        key = _key(WitnessKey.parse, what, vkey)
        if key.public_key in self._witnesses:
            # One witness under two names would count twice.
            raise MalformedPolicyError(f"{what} lists a witness's key again")
        if key.public_key in self._logs:
            # The log would vouch for itself.
            raise MalformedPolicyError(f"{what} lists a log's key as that of a witness")
        if (key.name, key.key_id) in self._identities:
            # Nobody could tell whose a line of the note is.
            raise MalformedPolicyError(f"{what} lists a second witness's key of this name and key id")
        self._define(what, name)
        self._identities.add((key.name, key.key_id))
        self._witnesses[key.public_key] = WitnessLine(name, key, *url)

    def _group(self, what: str, name: str, threshold: str, members: list[str]) -> None:
        for member in members:
            if member not in self._names:
                raise MalformedPolicyError(f"{what} has a member that no line above it defines")
            if member in self._members:
                raise MalformedPolicyError(f"{what} has a member that is in a group already")
            self._members.add(member)
        self._define(what, name)
        self._groups.append(Group(name, _threshold(what, threshold, len(members)), tuple(members)))

    def _set_quorum(self, what: str, name: str) -> None:
        if self._quorum is not None:
            raise MalformedPolicyError(f"{what} is a second quorum line")
        if name != NO_QUORUM and name not in self._names:
            raise MalformedPolicyError(f"{what} names a quorum that no line above it defines")
        self._quorum = name

    def _define(self, what: str, name: str) -> None:
        if name == NO_QUORUM or name in self._names:
            raise MalformedPolicyError(f"{what} gives a name that is taken")
        self._names.add(name)


def _key(parse_key: Callable[[str], _Key], what: str, vkey: str) -> _Key:
    if any("\ud800" <= character <= "\udfff" for character in vkey):
        raise MalformedPolicyError(f"{what} has a key whose name is not UTF-8")
    try:
        return parse_key(vkey)
    except MalformedKeyError as error:
        raise MalformedPolicyError(f"{what}: {error}") from error


def _threshold(what: str, word: str, members: int) -> int:
    if word in ("any", "all"):
        return 1 if word == "any" else members
    threshold = strict.decimal(word, f"the threshold in {what}", MalformedPolicyError)
    if not 1 <= threshold <= members:
        raise MalformedPolicyError(f"{what} asks for {threshold} of {members} members")
    return threshold


def _given(url: str | None) -> tuple[str, ...]:
    return () if url is None else (url,)
