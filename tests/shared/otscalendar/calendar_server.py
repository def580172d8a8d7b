"""A calendar server: takes digests, promises to date them, and has kept its promises once a block was mined.

It aggregates what comes in at the same time, numbers it with its clock and seals the number, as the reference server
does; and it fails in the ways in which servers of others fail.
"""

import asyncio
import hmac
import os
import struct
import time
from typing import Literal

from aiohttp import web
from opentimestamps.bitcoin import make_timestamp_from_block
from opentimestamps.core.notary import BitcoinBlockHeaderAttestation, PendingAttestation
from opentimestamps.core.op import OpAppend, OpHexlify, OpPrepend, OpSHA256
from opentimestamps.core.serialize import BytesSerializationContext
from opentimestamps.core.timestamp import Timestamp, make_merkle_tree

from otscalendar.chain import Chain

Fault = Literal["hang", "drip", "error", "garbage", "huge", "redirect", "elsewhere", "forgets", "lies", "misleads"]
TYPE = "application/vnd.opentimestamps.v1"


class CalendarServer:
    """One calendar; `fault` makes it fail from now on, None heals it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.url = ""
        self.fault: Fault | None = None
        self.digests: list[bytes] = []  # all that was ever asked to be dated
        self.asked: list[bytes] = []  # all messages that somebody asked about
        self._key = os.urandom(32)
        self._waiting: list[tuple[Timestamp, asyncio.Future[None]]] = []
        self._promised: dict[bytes, Timestamp] = {}  # by what was promised, grown by a way to a block
        self._unmined: list[Timestamp] = []
        self._closing = asyncio.Event()
        application = web.Application()
        application.router.add_post("/digest", self._digest)
        application.router.add_get("/timestamp/{commitment}", self._timestamp)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    def mine(self, when: int | None = None) -> int:
        """Put all promises that are open into one block, and return its height."""
        tip = make_merkle_tree(self._unmined)
        height = self.chain.mine(tip.msg, when)
        way = make_timestamp_from_block(tip.msg, self.chain.block(height), height)
        tip.merge(way)
        self._unmined.clear()
        return height

    async def _digest(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if len(body) > 64:
            raise web.HTTPBadRequest(text="digest too long")
        self.digests.append(body)
        failed = await self._fail(request)
        if failed is not None:
            return failed
        return self._answer(await self._promise(body))

    async def _timestamp(self, request: web.Request) -> web.StreamResponse:
        commitment = bytes.fromhex(request.match_info["commitment"])
        self.asked.append(commitment)
        failed = await self._fail(request)
        if failed is not None:
            return failed
        known = self._promised.get(commitment)
        if known is None or self.fault == "forgets":
            raise web.HTTPNotFound(text="Not found")
        if not any(type(one) is BitcoinBlockHeaderAttestation for _, one in known.all_attestations()):
            raise web.HTTPNotFound(text="Pending confirmation in Bitcoin blockchain")
        return self._answer(known)

    async def _promise(self, digest: bytes) -> Timestamp:
        """Give the digest a nonce, put it into a tree with what else has just come, and number the tip."""
        answer = Timestamp(digest)
        leaf = answer.ops.add(OpAppend(os.urandom(16))).ops.add(OpSHA256())
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((leaf, done))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(0.02, self._aggregate)
        await done
        return answer

    def _aggregate(self) -> None:
        tip = make_merkle_tree([leaf for leaf, _ in self._waiting])
        numbered = tip.ops.add(OpPrepend(struct.pack(">L", int(time.time()))))
        sealed = numbered.ops.add(OpAppend(hmac.digest(self._key, numbered.msg, "sha256")[:8]))
        sealed.attestations.add(PendingAttestation(self._named()))
        # What is answered later begins here, without the promise itself.
        kept = Timestamp(sealed.msg)
        self._promised[sealed.msg] = kept
        self._unmined.append(kept.ops.add(OpSHA256()))
        for _, done in self._waiting:
            done.set_result(None)
        self._waiting.clear()

    def _named(self) -> str:
        return "https://somebody.example.com" if self.fault == "elsewhere" else self.url

    async def _fail(self, request: web.Request) -> web.StreamResponse | None:
        match self.fault:
            case "hang":
                await self._closing.wait()
            case "drip":
                response = web.StreamResponse()
                await response.prepare(request)
                while not self._closing.is_set():
                    await response.write(b"\x08")
                    await asyncio.sleep(0.05)
                return response
            case "error":
                return web.Response(status=503, text="busy")
            case "garbage":
                return web.Response(body=b"no timestamp" * 20)
            case "huge":
                return web.Response(body=bytes(1_000_000))
            case "redirect":
                return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/digest"})
            case "lies":
                return self._answer(_block_of(OpSHA256()))
            case "misleads":
                return self._answer(_block_of(OpHexlify()))
        return None

    def _answer(self, timestamp: Timestamp) -> web.Response:
        context = BytesSerializationContext()
        timestamp.serialize(context)
        return web.Response(body=context.getbytes(), content_type=TYPE)


def _block_of(step: OpSHA256 | OpHexlify) -> Timestamp:
    """Return what says of whatever it is put behind that a block holds it."""
    said = Timestamp(bytes(32))
    said.ops.add(step).attestations.add(BitcoinBlockHeaderAttestation(1))
    return said
