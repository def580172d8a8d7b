"""Ed25519 verification in Python alone, for machines without pynacl, in the profile of docs/proof-format.md.

`ed25519.verify` calls it where libsodium cannot be loaded, so that the single-file verifier runs with nothing but a
Python interpreter. It only verifies: keys, messages and signatures are public, so it need not hide how long it takes.
The tests hold it to libsodium, on the shared vectors and on signatures made at random and made to be awkward.
"""

from hashlib import sha512
from typing import Final

P: Final = 2**255 - 19  # the field
ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of the prime-order subgroup
D: Final = -121665 * pow(121666, -1, P) % P
SQRT_M1: Final = pow(2, (P - 1) // 4, P)
_SIGN: Final = 1 << 255

Point = tuple[int, int, int, int]  # extended coordinates: x = X / Z, y = Y / Z, T = X * Y / Z

_NEUTRAL: Final[Point] = (0, 1, 1, 0)


def is_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether 64 bytes are a signature over the message by a 32-byte key."""
    commitment, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    if scalar >= ORDER or _has_small_order(commitment) or _has_small_order(public_key):
        return False
    key = _decode(public_key)
    if key is None:
        return False
    challenge = int.from_bytes(sha512(commitment + public_key + message).digest(), "little") % ORDER
    x, y, z, t = key
    # The equation without cofactor, compared as bytes: a second encoding of the same point is refused.
    return _encode(_combine(scalar, _BASE, challenge, (P - x, y, z, P - t))) == commitment


def _has_small_order(encoded: bytes) -> bool:
    """Say whether this encodes one of the eight points of small order, canonically or not."""
    return (int.from_bytes(encoded, "little") & (_SIGN - 1)) % P in _SMALL_ORDER


def _decode(encoded: bytes) -> Point | None:
    """Return the point of a canonical encoding, None if it is not on the curve or not canonical."""
    value = int.from_bytes(encoded, "little")
    y, odd = value & (_SIGN - 1), value >> 255
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * v**3 * pow(u * v**7, (P - 5) // 8, P) % P
    if (v * x * x + u) % P == 0:
        x = x * SQRT_M1 % P
    if (v * x * x - u) % P:
        return None
    # x is 0 for points of small order alone, which have no business here.
    return (x, y, 1, x * y % P) if x & 1 == odd else (P - x, y, 1, (P - x) * y % P)


def _encode(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def _add(one: Point, other: Point) -> Point:
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * D * t1 * t2 % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _double(point: Point) -> Point:
    x, y, z, _ = point
    a, b = x * x % P, y * y % P
    h = a + b
    e = h - (x + y) * (x + y) % P
    g = a - b
    f = 2 * z * z % P + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _combine(m: int, one: Point, n: int, other: Point) -> Point:
    """Return m * one + n * other, both scalars at once, two bits of each at a time."""
    ones = [_NEUTRAL, one, _double(one), _add(_double(one), one)]
    others = [_NEUTRAL, other, _double(other), _add(_double(other), other)]
    table = [_add(a, b) for a in ones for b in others]
    total = _NEUTRAL
    for shift in range(252, -1, -2):
        total = _double(_double(total))
        digit = (m >> shift & 3) << 2 | n >> shift & 3
        if digit:
            total = _add(total, table[digit])
    return total


_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_Y: Final = 4 * pow(5, -1, P) % P
_BASE: Final[Point] = (_X, _Y, 1, _X * _Y % P)
# The y of the points of small order: 1 has order 1, -1 order 2, 0 order 4, and this one and its opposite order 8.
_Y8: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER: Final = frozenset({0, 1, P - 1, _Y8, P - _Y8})
