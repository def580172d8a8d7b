"""Makes a screenshot small: 256 colours of its own stand for all, which text on plain ground hardly misses."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SIZE: Final = 3  # bytes of a pixel: Chromium writes eight bits each of red, green and blue


def reduced(png: bytes) -> bytes:
    """Return the same picture in at most 256 colours, each of the others as the nearest of them."""
    parts = dict(_parts(png))
    width, height, *form = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    if form != [8, 2, 0, 0, 0]:
        raise ValueError("the picture is not of eight bits each of red, green and blue")
    lines = list(_lines(zlib.decompress(parts[b"IDAT"]), width * _SIZE))
    pixels = [[bytes(line[at : at + _SIZE]) for at in range(0, len(line), _SIZE)] for line in lines]
    counted = Counter(pixel for line in pixels for pixel in line)
    palette = _palette(counted)
    places = {colour: min(range(len(palette)), key=lambda at: _distance(palette[at], colour)) for colour in counted}
    data = b"".join(b"\0" + bytes(places[pixel] for pixel in line) for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _palette(counted: Counter[bytes]) -> list[bytes]:
    """Return the most frequent colours, and those that are least like any of them: a rare one must not turn grey."""
    palette = [colour for colour, _ in counted.most_common(128)]
    apart = {colour: min(_distance(colour, one) for one in palette) for colour in counted}
    while len(palette) < 256 and max(apart.values()) > 0:
        palette.append(max(apart, key=lambda colour: apart[colour]))
        apart = {colour: min(distance, _distance(colour, palette[-1])) for colour, distance in apart.items()}
    return palette


def _parts(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks by name, those of the pixels as one."""
    pixels, at = b"", len(_SIGNATURE)
    while at < len(png):
        size, name = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + size]
        at += 12 + size
        if name == b"IDAT":
            pixels += content
        else:
            yield name, content
    yield b"IDAT", pixels


def _lines(data: bytes, size: int) -> Iterator[bytearray]:
    """Undo the filters of each line (PNG, section 9)."""
    above = bytearray(size)
    for start in range(0, len(data), size + 1):
        kind, line = data[start], bytearray(data[start + 1 : start + 1 + size])
        for at in range(size):
            left, corner = (line[at - _SIZE], above[at - _SIZE]) if at >= _SIZE else (0, 0)
            line[at] = (line[at] + _predicted(kind, left, above[at], corner)) & 0xFF
        yield line
        above = line


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 3:
        return (0, left, up)[kind]
    if kind == 3:
        return (left + up) // 2
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
