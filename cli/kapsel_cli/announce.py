"""What `kapsel up` says once everything runs: where to send webhooks, and where to look."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

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
    terminal.done(f"all processes are ready ({seconds:.1f} s after the start)")
    grid = Table.grid(padding=(0, 2))
    for endpoint in configuration.endpoints[:MOST_ENDPOINTS]:
        for index, url in enumerate(ingest_urls(endpoint, running.ingest)):
            grid.add_row(f"  {endpoint.namespace}/{endpoint.name}" if index == 0 else "", _link(url))
    rest = len(configuration.endpoints) - MOST_ENDPOINTS
    if rest > 0:
        grid.add_row("", f"and {rest} more: kapsel get endpoints")
    if not configuration.endpoints:
        grid.add_row("  endpoints", "none is declared yet")
    grid.add_row("  console and API", _link(running.console))
    for name, url in running.metrics.items():
        grid.add_row(f"  {name} metrics", _link(url))
    terminal.table(grid)
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
    if len(changes) <= MOST_CHANGES:
        return ", ".join(map(str, changes))
    counts = Counter((change.what, change.happened) for change in changes)
    return ", ".join(f"{count} {what}{'s' * (count > 1)} {happened}" for (what, happened), count in counts.items())


def _link(url: str) -> Text:
    return Text(url, style="cyan", no_wrap=True)
