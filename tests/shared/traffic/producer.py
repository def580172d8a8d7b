"""Where webhooks come from: a provider that sends each again until it is accepted, as providers do."""

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import aiohttp

from traffic import SECRET


class Producer:
    """Posts numbered webhooks as GitHub signs them, again and again until each is accepted."""

    def __init__(self, url: str, secret: str = SECRET) -> None:
        self.url = url
        self.accepted: dict[str, str] = {}  # delivery id of the provider -> event id
        self.troubles: Counter[str] = Counter()  # answers other than 202, and lost connections
        self._secret = secret

    async def send(self, session: aiohttp.ClientSession, number: int) -> None:
        """Post one webhook until it is accepted."""
        body = json.dumps({"number": number, "padding": secrets.token_hex(200)}).encode()
        guid = f"delivery-{number}"
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": guid,
            "X-Hub-Signature-256": "sha256=" + hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        async with asyncio.timeout(180):
            while guid not in self.accepted:
                try:
                    async with session.post(self.url, data=body, headers=headers) as answer:
                        if answer.status == 202:
                            self.accepted[guid] = (await answer.json())["id"]
                            return
                        assert answer.status in (429, 503), f"{answer.status} {await answer.text()}"
                        self.troubles[str(answer.status)] += 1
                except (aiohttp.ClientError, TimeoutError) as error:
                    self.troubles[type(error).__name__] += 1
                await asyncio.sleep(0.02)

    async def run(self, numbers: Iterable[int], at_once: int = 16, pause: float = 0) -> None:
        """Post these webhooks, so many at once, each after a pause."""
        following = iter(numbers)
        timeout = aiohttp.ClientTimeout(total=10)

        async def work() -> None:
            for number in following:
                await self.send(session, number)
                await asyncio.sleep(pause)

        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work())

    @asynccontextmanager
    async def under_load(self, at_once: int = 4, pause: float = 0.04) -> AsyncIterator[None]:
        """Post as long as the block lasts, at most 100 a second, then finish what was begun.

        What is meant to be seen is what becomes of each webhook, and pods that start need the machine as well.
        """
        done = asyncio.Event()
        first = len(self.accepted)
        numbers = itertools.takewhile(lambda _: not done.is_set(), itertools.count(first))
        running = asyncio.create_task(self.run(numbers, at_once, pause))
        try:
            yield
        finally:
            done.set()
            with suppress(asyncio.CancelledError):
                await running
