"""A Bitcoin chain with the rules of regtest: real transactions, real if easy work; and the RPC of a node."""

import json
import time
from typing import Any

from aiohttp import web
from bitcoin.core import CBlock, CMutableTransaction, CMutableTxIn, CMutableTxOut, COutPoint, CTransaction
from bitcoin.core.script import OP_RETURN, CScript
from bitcoin.core.serialize import uint256_from_str

EASY = 0x207FFFFF
TARGET = 0x7FFFFF << 232


class Chain:
    """Blocks on top of each other; the first has height `first`."""

    def __init__(self, first: int = 967_000) -> None:
        self.first = first
        self.blocks: list[CBlock] = []

    def mine(self, commitment: bytes, when: int | None = None) -> int:
        """Put 32 bytes into a transaction of a new block and return its height."""
        height = self.first + len(self.blocks)
        # Others are in the block too: an odd number of transactions, of which the last counts twice in its tree.
        transactions = [_transaction(b"coinbase %d" % height), _transaction(commitment), _transaction(b"another")]
        block = CBlock(
            nVersion=0x20000000,
            hashPrevBlock=self.blocks[-1].GetHash() if self.blocks else bytes(32),
            hashMerkleRoot=CBlock.build_merkle_tree_from_txs(transactions)[-1],
            nTime=int(time.time()) if when is None else when,
            nBits=EASY,
            nNonce=0,
            vtx=tuple(transactions),
        )
        while uint256_from_str(block.GetHash()) > TARGET:
            block = CBlock(
                block.nVersion,
                block.hashPrevBlock,
                block.hashMerkleRoot,
                block.nTime,
                EASY,
                block.nNonce + 1,
                block.vtx,
            )
        self.blocks.append(block)
        return height

    def block(self, height: int) -> CBlock:
        return self.blocks[height - self.first]

    def header(self, height: int) -> bytes:
        """Return the 80 bytes."""
        return bytes(self.block(height).get_header().serialize())


class Node:
    """What the stock client asks a Bitcoin node, over HTTP with its JSON-RPC."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.url = ""
        application = web.Application()
        application.router.add_post("/", self._call)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://user:password@127.0.0.1:{self._runner.addresses[0][1]}/"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _call(self, request: web.Request) -> web.Response:
        # The client says no content type that aiohttp would take for JSON.
        asked = json.loads(await request.read())
        return web.json_response({"id": asked["id"], "error": None, "result": self._answer(asked)})

    def _answer(self, asked: dict[str, Any]) -> object:
        by_hash = {block.GetHash()[::-1].hex(): block for block in self.chain.blocks}
        match asked["method"], asked["params"]:
            case "getblockcount", []:
                return self.chain.first + len(self.chain.blocks) - 1
            case "getblockhash", [height]:
                return self.chain.block(height).GetHash()[::-1].hex()
            case "getblockheader", [block_hash, False]:
                return by_hash[block_hash].get_header().serialize().hex()
        raise web.HTTPNotFound


def _transaction(data: bytes) -> CTransaction:
    spent = CMutableTxIn(COutPoint(bytes(32), 0xFFFFFFFF))
    paid = CMutableTxOut(0, CScript([OP_RETURN, data]))
    return CTransaction.from_tx(CMutableTransaction([spent], [paid]))
