"""The HTTP side of a witness: `POST /add-checkpoint`, and what it saw of each log for whoever wants to compare.

One head at a time is judged, remembered and cosigned, so no two requests can step back behind each other.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from aiohttp import web

from kapsel_verifier import add_checkpoint, cosignature
from kapsel_verifier.add_checkpoint import SIZE_TYPE, AddCheckpoint
from kapsel_verifier.cosignature import cosign
from kapsel_verifier.errors import MalformedNoteError
from kapsel_verifier.note import Note, signature_line
from kapsel_witness.errors import StateError
from kapsel_witness.judge import Agreed, Logs, Refused, judge
from kapsel_witness.key import Key
from kapsel_witness.metrics import Metrics
from kapsel_witness.state import State

BODY_TIMEOUT: Final = 10.0  # seconds for the whole body of a request
MAX_EVIDENCE: Final = 100  # files: a log that cheats more often is proven enough

logger = logging.getLogger(__name__)


def now() -> int:
    """Return the time in seconds since the epoch, as cosignatures are dated."""
    return int(time.time())


class Witness:
    """Cosigns heads of the logs it knows."""

    def __init__(
        self,
        key: Key,
        state: State,
        logs: Logs,
        metrics: Metrics,
        evidence: Path,
        clock: Callable[[], int] = now,
    ) -> None:
        """Cosign with `key`; what proves that a log cheats is put into the directory `evidence`."""
        self._key = key
        self._state = state
        self._logs = logs
        self._metrics = metrics
        self._evidence = evidence
        self._clock = clock
        self._turn = asyncio.Lock()
        self._trouble: str | None = None
        self._origins = {sha256(origin.encode()).hexdigest(): origin for origin in [*logs, *state.notes]}
        for origin in state.notes:
            self._measure(origin)

    def problem(self) -> str | None:
        """Return why nothing can be cosigned now, or None."""
        return self._trouble

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=add_checkpoint.MAX_REQUEST_SIZE)
        app.router.add_post(f"/{add_checkpoint.PATH}", self._add_checkpoint)
        app.router.add_get("/{origin:[0-9a-f]{64}}/checkpoint", self._checkpoint)
        return app

    async def _add_checkpoint(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the body did not come in time\n")
        try:
            asked = AddCheckpoint.parse(body)
        except MalformedNoteError as error:
            self._metrics.requests.labels(result="malformed").inc()
            return web.Response(status=400, text=f"{error}\n")
        # To the end even if the log hangs up: what was begun is remembered and answered as one.
        return await asyncio.shield(self._answer(asked))

    async def _answer(self, asked: AddCheckpoint) -> web.Response:
        async with self._turn:
            said = judge(asked, self._logs, self._state.known)
            if isinstance(said, Refused):
                if said.forked:
                    await self._keep_evidence(asked.checkpoint)
                return self._refuse(said)
            try:
                line = await self._cosign(said)
            except StateError as error:
                self._trouble = str(error)
                self._metrics.requests.labels(result="failed").inc()
                logger.exception("a head was not cosigned")
                return web.Response(status=500, text="the head could not be remembered, so it was not cosigned\n")
        self._trouble = None
        self._metrics.requests.labels(result="cosigned").inc()
        return web.Response(body=line.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})

    async def _cosign(self, said: Agreed) -> str:
        origin = said.checkpoint.origin
        # Dates never go back, whatever the clock of this machine does.
        timestamp = max(self._clock(), self._state.timestamp(origin))
        if (again := self._cosigned(said.text, timestamp)) is not None:
            return again
        line = cosign(said.text, timestamp, self._key.public, self._key.sign)
        lines = [signature_line(one.name, one.key_id, one.signature) for one in said.signatures]
        note = f"{said.text}\n{''.join(dict.fromkeys(lines))}{line}"
        await asyncio.to_thread(self._state.put, origin, note)
        self._measure(origin)
        logger.info("cosigned", extra={"origin": origin, "tree_size": said.checkpoint.tree_size})
        return line

    def _cosigned(self, text: str, timestamp: int) -> str | None:
        """Return the line that was given for the same head in the same second, if there is one.

        The newest head of a log is public, and anybody can put it here again as often as they like. It would be the
        same line: nothing is written for it, so that the log's own next head does not wait behind a stranger's.
        """
        kept = self._state.notes.get(text.partition("\n")[0])
        if kept is None or (note := Note.parse(kept)).text != text:
            return None
        found = cosignature.find(note, [self._key.public])
        if found[0].timestamp != timestamp:
            return None
        one = next(one for one in note.signatures if (one.name, one.key_id) == (found[0].name, found[0].key_id))
        return signature_line(one.name, one.key_id, one.signature)

    def _refuse(self, said: Refused) -> web.Response:
        self._metrics.requests.labels(result=said.result).inc()
        # What nobody known has signed anybody can send, as often as they like.
        level = logging.DEBUG if said.status in (400, 403, 404) else logging.WARNING
        logger.log(level, "refused a head: %s", said.reason, extra={"status": said.status})
        if said.known_size is not None:
            return web.Response(
                status=said.status, body=f"{said.known_size}\n".encode(), headers={"Content-Type": SIZE_TYPE}
            )
        return web.Response(status=said.status, text=f"{said.reason}\n")

    async def _checkpoint(self, request: web.Request) -> web.Response:
        origin = self._origins.get(request.match_info["origin"])
        note = None if origin is None else self._state.notes.get(origin)
        if note is None:
            return web.Response(status=404, text="this witness has cosigned no head of such a log\n")
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "public, max-age=1, must-revalidate"}
        return web.Response(body=note.encode(), headers=headers)

    async def _keep_evidence(self, checkpoint: str) -> None:
        """Keep two heads that a log signed and that cannot both be true: anybody can check that it cheats."""
        origin = checkpoint.partition("\n")[0]
        self._metrics.forks.labels(origin=origin).inc()
        logger.critical("the log shows two histories", extra={"origin": origin})
        cosigned = self._state.notes[origin]
        name = f"fork-{sha256((cosigned + checkpoint).encode()).hexdigest()[:16]}"

        def write() -> None:
            self._evidence.mkdir(exist_ok=True)
            if len(list(self._evidence.iterdir())) < 2 * MAX_EVIDENCE:
                (self._evidence / f"{name}-cosigned.txt").write_text(cosigned, encoding="utf-8")
                (self._evidence / f"{name}-refused.txt").write_text(checkpoint, encoding="utf-8")

        try:
            await asyncio.to_thread(write)
        except OSError:
            logger.exception("what proves it could not be kept")

    def _measure(self, origin: str) -> None:
        self._metrics.tree_size.labels(origin=origin).set(self._state.known[origin].tree_size)
        self._metrics.cosigned_at.labels(origin=origin).set(self._state.timestamp(origin))
