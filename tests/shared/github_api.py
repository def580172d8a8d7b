"""The part of GitHub's API that gap healing asks: the deliveries of one hook."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web

TOKEN = b"github_pat_of_a_test"
HOOK = "/repos/octocat/hello/hooks/7"


@dataclass
class FakeGitHub:
    """The part of api.github.com that lists the deliveries of one hook and sends them again."""

    rows: list[dict[str, object]] = field(default_factory=list)  # the newest first
    asked: list[str] = field(default_factory=list)
    redelivered: list[int] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)  # instead of what it would say, the next first
    pieces: int = 1  # that an answer is sent in
    refuses: set[int] = field(default_factory=set)  # ids that it does not send again
    remaining: int = 5000
    page: int = 2
    url: str = ""

    def deliver(self, guid: str, code: int, age: timedelta) -> int:
        number = 100_000 + len(self.rows)
        at = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = {"redelivery": False, "duration": 0.2, "status": "OK", "event": "push", "action": None}
        row: dict[str, object] = {"id": number, "guid": guid, "delivered_at": at, "status_code": code, **facts}
        self.rows.append(row)
        self.rows.sort(key=lambda one: str(one["delivered_at"]), reverse=True)
        return number

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.remaining -= 1
        if self.answers:
            return self.answers.pop(0)
        answer = self._answer(request)
        answer.headers["X-RateLimit-Remaining"] = str(self.remaining)
        answer.headers["X-RateLimit-Reset"] = str(int(datetime.now(UTC).timestamp()) + 900)
        return answer if self.pieces == 1 else await self._in_pieces(request, answer)

    async def _in_pieces(self, request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
        """Send an answer so that its pieces arrive one by one, as those of a long one do."""
        body = answer.body
        assert isinstance(body, bytes)
        slow = web.StreamResponse(status=answer.status, headers=answer.headers)
        slow.headers.pop("Content-Length", None)
        await slow.prepare(request)
        size = -(-len(body) // self.pieces)
        for start in range(0, len(body), size):
            await slow.write(body[start : start + size])
            await asyncio.sleep(0.05)
        await slow.write_eof()
        return slow

    def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN.decode()}":
            return web.json_response({"message": "Bad credentials"}, status=401)
        if request.headers.get("Accept") != "application/vnd.github+json" or not request.headers.get("User-Agent"):
            return web.json_response({"message": "Not Acceptable"}, status=406)
        if not request.path.startswith(f"{HOOK}/deliveries"):
            return web.json_response({"message": "Not Found"}, status=404)
        if request.method == "POST":
            number = int(request.path.split("/")[-2])
            if number in self.refuses:
                return web.json_response({"message": "Validation Failed"}, status=422)
            self.redelivered.append(number)
            return web.json_response({}, status=202)
        start = int(request.query.get("cursor", "v1_0").removeprefix("v1_"))
        found = self.rows[start : start + self.page]
        answer = web.json_response(found)
        if start + self.page < len(self.rows):
            elsewhere = f"https://elsewhere.example{HOOK}/deliveries?per_page=100&cursor=v1_{start + self.page}"
            answer.headers["Link"] = f'<{elsewhere}>; rel="next"'
        return answer
