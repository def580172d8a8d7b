"""The one way in which loops wait: for events, and never without a deadline."""

import asyncio


async def until(*events: asyncio.Event, timeout: float) -> bool:
    """Wait until one of `events` is set, at most `timeout` seconds; return whether one is."""
    if not any(event.is_set() for event in events):
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
    return any(event.is_set() for event in events)
