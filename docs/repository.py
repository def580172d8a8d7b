"""A hook of mkdocs: what a page links outside of docs/ is no page of the site, and is linked in the repository."""

from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page with such links changed."""
    beside = "../" * (page.file.src_uri.count("/") + 1)
    return markdown.replace(f"]({beside}", f"]({config.extra['repository']}")
