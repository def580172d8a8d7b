"""What `kapsel up` says once everything runs: where to send webhooks, and where to look."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from kapsel_cli.configure import Change
from kapsel_cli.data_dir import Running
from kapsel_cli.terminal import Terminal
from kapsel_store.rows import Configuration, EndpointRow

MOST_ENDPOINTS: Final = 20
MOST_CHANGES: Final = 5
WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - where a person on this machine goes instead


def reachable(host: str) -> str:
    """Return the host as it stands in a URL that works on this machine."""
    shown = WILDCARDS.get(host, host)
    return f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown


def ready(terminal: Terminal, configuration: Configuration, running: Running, seconds: float) -> None:
    """Show every URL a person may want."""
    terminal.done(f"all processes are ready, {seconds:.1f} s after the start")
    rows = [
        (f"{endpoint.namespace}/{endpoint.name}" if first else "", url)
        for endpoint in configuration.endpoints[:MOST_ENDPOINTS]
        for first, url in zip((True, False), ingest_urls(endpoint, running.ingest), strict=False)
    ]
    rest = len(configuration.endpoints) - MOST_ENDPOINTS
    if rest > 0:
        rows.append(("", f"and {rest} more: kapsel get endpoints"))
    if not configuration.endpoints:
        rows.append(("endpoints", "none is declared yet"))
    rows.append(("console and API", running.console))
    rows += [(f"{name} metrics", url) for name, url in running.metrics.items()]
    width = max(len(name) for name, _ in rows)
    for name, url in rows:
        terminal.row(name, width, url)
    terminal.say("Ctrl-C finishes what is under way and stops")


def ingest_urls(endpoint: EndpointRow, base: str) -> list[str]:
    """Return where an endpoint takes webhooks: by name, and by the id that cannot be guessed."""
    urls = {
        "Name": f"{base}/ingest/{endpoint.namespace}/{endpoint.name}",
        "Id": f"{base}/ingest/{endpoint.id}",
    }
    return [url for form, url in urls.items() if form in endpoint.paths]


def summary(changes: Sequence[Change]) -> str:
    """Return changes as one line: each by its name, or when they are many, how many of each sort."""
    gone = any((change.what, change.happened) == ("destination", "removed") for change in changes)
    # Whoever did not mean to remove one must learn at once that it cost something.
    cost = "; what waited for a destination that was removed is cancelled" if gone else ""
    if len(changes) <= MOST_CHANGES:
        return ", ".join(map(str, changes)) + cost
    counts = Counter((change.what, change.happened) for change in changes)
    said = [f"{count} {what}{'s' * (count > 1)} {happened}" for (what, happened), count in counts.items()]
    return ", ".join(said) + cost
