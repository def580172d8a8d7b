"""Answers that may be kept: with an ETag, told apart from what the caller has already, and packed where that helps."""

import hashlib
from typing import Final

from aiohttp import ETag, web

JWK_SET: Final = "application/jwk-set+json"
KEYS_CACHE: Final = "public, max-age=60"
LEAST_PACKED: Final = 1024  # bytes; what is smaller fits in one packet either way


def kept(request: web.Request, content: bytes, *, type_: str, cache: str, packs: bool = False) -> web.Response:
    """Return content with its ETag, or 304 if that is what the caller has; `packs` if compressing makes it smaller."""
    # What is sent packed or not, as the caller likes, is the same only by its meaning: a weak tag.
    tag = ETag(value=hashlib.sha256(content).hexdigest()[:32], is_weak=packs)
    headers = {"Cache-Control": cache}
    if packs:
        headers["Vary"] = "Accept-Encoding"
    known = request.if_none_match or ()
    if any(one.value in ("*", tag.value) for one in known):
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(body=content, headers=headers | {"Content-Type": type_})
        if packs and len(content) >= LEAST_PACKED:
            response.enable_compression()
    response.etag = tag
    return response
