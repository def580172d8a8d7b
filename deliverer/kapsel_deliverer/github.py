"""GitHub's API, as far as gap healing needs it: list the deliveries of a hook, and ask for one of them again.

Called by `healing`. Every answer is a value; which one it is follows from status and headers alone, by
docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api. Of a next page only the cursor is taken
over, never its URL: the token goes nowhere but to the API that the manifest names.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import aiohttp
from yarl import URL

from kapsel_deliverer.errors import AddressDeniedError
from kapsel_deliverer.exchange import read_whole

TIMEOUT: Final = aiohttp.ClientTimeout(total=20)
PAGE: Final = 100  # attempts that are asked for at once; more are not taken, for those of a look are all kept
LARGEST: Final = 1_048_576  # bytes of an answer; a page has about 30,000
LONGEST_GUID: Final = 128  # characters; GitHub's have 36
RESERVE: Final = 50  # requests of the token's rate limit that are left to whoever else uses it
SECONDARY: Final = timedelta(minutes=1)  # to wait where GitHub names no time
HEADERS: Final = {
    "Accept": "application/vnd.github+json",
    "User-Agent": "kapsel",
    "X-GitHub-Api-Version": "2022-11-28",
}

Reason = Literal["TokenRefused", "HookNotFound", "RateLimited", "GitHubUnavailable", "EgressDenied", "Refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One attempt of GitHub's to deliver."""

    id: int
    guid: str  # the event: what X-GitHub-Delivery says, the same for each attempt
    delivered_at: datetime
    status_code: int  # of our answer; 0 if there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of attempts, the newest first."""

    sent: tuple[Sent, ...]
    cursor: str | None  # of the next page


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """GitHub did not do what it was asked for."""

    reason: Reason
    message: str
    wait: timedelta = timedelta(0)


class GitHub:
    """One hook."""

    def __init__(self, session: aiohttp.ClientSession, hook_url: str, token: str, now: Callable[[], datetime]) -> None:
        self._session = session
        self._url = f"{hook_url}/deliveries"
        self._headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        self._now = now
        self.spent: Trouble | None = None  # the rest of the rate limit is not ours

    async def page(self, cursor: str | None) -> Page | Trouble:
        """Return a page of attempts."""
        query = {"per_page": str(PAGE)} | ({} if cursor is None else {"cursor": cursor})
        answer = await self._ask("GET", self._url, query)
        if isinstance(answer, Trouble):
            return answer
        body, following = answer
        try:
            listed = json.loads(body)
            if not isinstance(listed, list) or len(listed) > PAGE:
                raise TypeError(type(listed))
            return Page(sent=tuple(_sent(one) for one in listed), cursor=following)
        except (ValueError, KeyError, TypeError):
            return Trouble(reason="GitHubUnavailable", message="the answer is no list of deliveries")

    async def redeliver(self, sent: Sent) -> Trouble | None:
        """Ask for a delivery again."""
        answer = await self._ask("POST", f"{self._url}/{sent.id}/attempts", {})
        return answer if isinstance(answer, Trouble) else None

    async def _ask(self, method: str, url: str, query: Mapping[str, str]) -> tuple[bytes, str | None] | Trouble:
        try:
            async with self._session.request(
                method, url, params=query, headers=self._headers, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                self._note_rest(response.headers)
                trouble = refused(response.status, response.headers, self._now())
                if trouble is not None:
                    return trouble
                body = await read_whole(response.content, LARGEST)
                following = response.links["next"].get("url") if "next" in response.links else None
                cursor = URL(str(following)).query.get("cursor") if following is not None else None
                return body or b"", cursor
        except AddressDeniedError as error:
            return Trouble(reason="EgressDenied", message=str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            denied = error.__cause__
            if isinstance(denied, AddressDeniedError):
                return Trouble(reason="EgressDenied", message=str(denied))
            return Trouble(reason="GitHubUnavailable", message=f"no answer: {type(error).__name__}")

    def _note_rest(self, headers: Mapping[str, str]) -> None:
        rest = headers.get("X-RateLimit-Remaining", "")
        if rest.isascii() and rest.isdigit() and int(rest) < RESERVE:
            wait = _until_reset(headers, self._now())
            self.spent = Trouble(
                reason="RateLimited", message=f"{rest} requests are left of the token's limit", wait=wait
            )


def refused(status: int, headers: Mapping[str, str], now: datetime) -> Trouble | None:
    """Return what an answer refuses, None if it refuses nothing."""
    match status:
        case 200 | 202:
            return None
        case 401:
            return Trouble(reason="TokenRefused", message="401: the token is wrong, or its time is over")
        case 403 | 429 if status == 429 or _is_limit(headers):
            return Trouble(reason="RateLimited", message=f"{status}: too many requests", wait=_limit(headers, now))
        case 403:
            return Trouble(reason="TokenRefused", message="403: the token may not read and write this hook")
        case 404:
            message = "404: there is no such hook, or the token may not see it"
            return Trouble(reason="HookNotFound", message=message)
        case 400 | 422:
            return Trouble(reason="Refused", message=f"{status}: GitHub does not send this delivery again")
    return Trouble(reason="GitHubUnavailable", message=f"GitHub answered {status}")


def _is_limit(headers: Mapping[str, str]) -> bool:
    return "Retry-After" in headers or headers.get("X-RateLimit-Remaining") == "0"


def _limit(headers: Mapping[str, str], now: datetime) -> timedelta:
    named = headers.get("Retry-After", "")
    if named.isascii() and named.isdigit() and len(named) < 7:
        return timedelta(seconds=int(named))
    return _until_reset(headers, now) if headers.get("X-RateLimit-Remaining") == "0" else SECONDARY


def _until_reset(headers: Mapping[str, str], now: datetime) -> timedelta:
    reset = headers.get("X-RateLimit-Reset", "")
    if not (reset.isascii() and reset.isdigit() and len(reset) < 12):
        return SECONDARY
    seconds = int(reset) - now.timestamp()
    return timedelta(seconds=min(max(seconds, 1.0), 86_400.0))


def _sent(one: dict[str, Any]) -> Sent:
    moment = datetime.fromisoformat(one["delivered_at"])
    code = one["status_code"]
    if type(one["id"]) is not int or not isinstance(one["guid"], str) or type(code) not in (int, type(None)):
        raise TypeError(one)
    if len(one["guid"]) > LONGEST_GUID:
        raise ValueError(len(one["guid"]))
    when = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return Sent(id=one["id"], guid=one["guid"], delivered_at=when, status_code=code or 0)
