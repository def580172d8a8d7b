"""A real browser for tests of pages: Chromium without a window, driven over a pipe by the DevTools protocol.

Nothing is installed beside the browser itself, and no port is opened. `chromium` starts it, a `Page` is one tab.
"""

from browser.chromium import Browser, BrowserError, Page, find

__all__ = ["Browser", "BrowserError", "Page", "find"]
