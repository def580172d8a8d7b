"""Starts Chromium and speaks the DevTools protocol with it, synchronously: a test is one line of events after another.

Messages are JSON texts ended by a zero byte, on the two descriptors of --remote-debugging-pipe. Every wait has a
deadline; events that come between are kept, so that a test can ask afterwards what was requested or complained of.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEADLINE: Final = 300.0  # seconds: the machine may be busy with other things
_OPTIONS: Final = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none",
    "--disable-lcd-text",
)  # fmt: skip


class BrowserError(Exception):
    """The browser refused a command, or a script on a page failed."""


def find() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


class Browser:
    """One process of Chromium with a profile of its own; a context manager."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._commands = _pipe()
        self._answers, answers = _pipe()
        options = [*_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        if os.geteuid() == 0:
            options.insert(0, "--no-sandbox")  # Chromium's own sandbox refuses to be run by root
        # The shell puts our ends where Chromium looks for them; the descriptors are above 9, so none is overwritten.
        redirected = f'exec "$@" 3<&{commands} 4>&{answers}'
        with (profile / "stderr").open("wb") as complaints:
            self._process = subprocess.Popen(
                ["bash", "-c", redirected, "chromium", program, *options],
                pass_fds=(commands, answers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,
            )
        os.close(commands)
        os.close(answers)
        self._received = bytearray()
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrowserError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(DEADLINE)
        finally:
            # Its helpers are in its session, and end with it; should one not, it is ended here.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            os.close(self._commands)
            os.close(self._answers)

    def call(
        self, method: str, parameters: Mapping[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Send one command and return its result; raises BrowserError."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": dict(parameters or {})}
        if session is not None:
            message["sessionId"] = session
        _write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait_for(self, method: str, session: str, since: int = 0) -> dict[str, Any]:
        """Return the first event of this kind on a page after the first `since` events, waiting for it if need be."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for event in self.events[since:]:
                if event.get("method") == method and event.get("sessionId") == session:
                    return event
            since = len(self.events)
            self.events.append(self._receive(deadline))

    @contextlib.contextmanager
    def page(self, width: int = 1000, height: int = 800) -> "Iterator[Page]":
        """Open a tab of this size in CSS pixels, with nothing remembered from other tabs."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        made = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        attached = self.call("Target.attachToTarget", {"targetId": made["targetId"], "flatten": True})
        page = Page(self, attached["sessionId"])
        page.resize(width, height)
        try:
            yield page
        finally:
            self.call("Target.disposeBrowserContext", {"browserContextId": context})

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise BrowserError(f"the browser did not answer within {DEADLINE:.0f} s")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise BrowserError("the browser has ended")
            self._received += data
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self._first = len(browser.events)
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command to this tab; raises BrowserError."""
        return self._browser.call(method, parameters, self._session)

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Lay the page out for a screen of this size in CSS pixels."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **screen)

    def emulate(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def open(self, url: str) -> None:
        """Load a page and wait until all of it, and what it imports, is there."""
        since = len(self._browser.events)
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")
        self._browser.wait_for("Page.loadEventFired", self._session, since)

    def run(self, script: str, *arguments: Any) -> Any:
        """Call a JavaScript function, given as source, with JSON values, and return what its promise gives."""
        call = f"({script})(...{json.dumps(arguments)})"
        answer = self.call("Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait_until(self, condition: str, *arguments: Any) -> Any:
        """Wait until a JavaScript function returns something true, asked anew after each frame; return that."""
        script = f"""async (...given) => {{
          const end = performance.now() + {DEADLINE * 1000 / 2};
          for (;;) {{
            const found = ({condition})(...given);
            if (found || performance.now() > end) return found;
            await new Promise((resolve) => setTimeout(resolve, 20));
          }}
        }}"""
        found = self.run(script, *arguments)
        if not found:
            raise BrowserError(f"this did not become true: {condition} {arguments}")
        return found

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a file input, as a person does in the dialog."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=node["objectId"])

    def drop(self, selector: str, *files: Path) -> None:
        """Drop files onto an element, as a person does who drags them from the desktop."""
        place = self.run(
            """(selector) => {
              const element = document.querySelector(selector);
              element.scrollIntoView({block: "center"});
              const box = element.getBoundingClientRect();
              return {x: box.x + box.width / 2, y: box.y + box.height / 2};
            }""",
            selector,
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **place)

    def press(self, key: str, text: str = "") -> None:
        """Press a key, such as Tab or Enter."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def requested(self) -> list[str]:
        """Return the addresses that this page asked for, in order; data: addresses ask nobody and are left out."""
        urls = [event["params"]["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Return what the page's console shows: refusals by its security policy, and exceptions nobody caught."""
        entries = [event["params"]["entry"]["text"] for event in self._events("Log.entryAdded")]
        thrown = [event["params"]["exceptionDetails"]["text"] for event in self._events("Runtime.exceptionThrown")]
        said = [
            str([argument.get("value") for argument in event["params"]["args"]])
            for event in self._events("Runtime.consoleAPICalled")
        ]
        return entries + thrown + said

    def screenshot(self) -> bytes:
        """Return what the window shows, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.run("() => null")  # what the page did before has been reported when this answers
        return [
            event
            for event in self._browser.events[self._first :]
            if event.get("method") == method and event.get("sessionId") == self._session
        ]


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
