"""How long a token is used that its destination refuses, by a clock that is moved."""

import asyncio
import hashlib
import json
from itertools import count

from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_deliverer.exchange import Response
from kapsel_deliverer.oauth2 import DOUBTED, Client, Token, Tokens

LOGIN = "http://login.example/token"


class World:
    """A clock, and a server that gives a token an hour long to whoever asks."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tokens = Tokens(clock=lambda: self.now)
        self._numbers = count(1)
        request = ClientRequest("POST", URL(LOGIN), loop=asyncio.get_running_loop())
        self._client = Client(
            url=LOGIN, form=b"", authorization=None, denied=None, context=None, request=request, head=b""
        )

    async def token(self) -> Token:
        found = await self.tokens.token(self._client, self._fetch)
        assert isinstance(found, Token)
        return found

    def answered(self, token: Token, status: int) -> bool:
        return self.tokens.answered(self._client, token, status)

    async def _fetch(self, _: Client) -> Response:
        said = {"access_token": f"token-{next(self._numbers)}", "token_type": "Bearer", "expires_in": 3600}
        body = json.dumps(said).encode()
        digest = hashlib.sha256(body).digest()
        return Response(status=200, headers="[]", fields=(), body=body, size=len(body), digest=digest, whole=True)


async def test_a_token_that_replaces_a_refused_one_and_is_refused_too_is_replaced_after_a_while() -> None:
    world = World()
    assert world.answered(await world.token(), 401)
    second = await world.token()
    assert not world.answered(second, 401)
    world.now += DOUBTED - 1
    assert await world.token() is second  # a destination that wants something else has no server asked at each try
    world.now += 1
    third = await world.token()
    assert third.value == "token-3"
    assert not world.answered(third, 401)  # it still wants something else, and the delivery is given up as before
    world.now += DOUBTED
    fourth = await world.token()
    assert not world.answered(fourth, 200)
    world.now += DOUBTED
    assert await world.token() is fourth
    assert world.answered(fourth, 401)


async def test_a_token_that_is_taken_after_all_is_no_refused_one_to_those_that_replace_it() -> None:
    world = World()
    assert world.answered(await world.token(), 401)
    doubted = await world.token()
    assert not world.answered(doubted, 401)
    assert not world.answered(doubted, 200)  # by another destination, or the 401 was passing
    world.now += DOUBTED
    assert world.answered(await world.token(), 401)  # the first of its line that is refused
