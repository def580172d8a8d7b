"""Looking again and again at a console that may be away for a while: what `get --watch` and `tail` share."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from kapsel_cli.errors import RefusedError, UnreachableError

T = TypeVar("T")


def follow(look: Callable[[], T], interval: float) -> Iterator[T]:
    """Yield what each look finds, `interval` seconds apart; while the console is away, say so once and wait."""
    away = False
    while True:
        time.sleep(interval)
        try:
            found = look()
        except (UnreachableError, RefusedError) as error:
            if isinstance(error, RefusedError) and not error.temporary:
                raise
            if not away:
                hint(f"kapsel: {error.problem}; still looking.")
            away = True
            continue
        if away:
            hint("kapsel: the console is back.")
        away = False
        yield found


def hint(text: str) -> None:
    """Say something to the person, not to the pipe."""
    print(text, file=sys.stderr, flush=True)
