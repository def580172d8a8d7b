"""How many filters a core evaluates in a second: python bench/expressions.py."""

import json
import time
from datetime import UTC, datetime

from kapsel_expressions.event import Event, parse_body
from kapsel_expressions.expression import Expression, compile_source

BODY = json.dumps({"action": "created", "user": {"id": 7}, "items": [{"sku": f"A-{n}", "n": n} for n in range(10)]})
SOURCES = (
    'event.body.action == "created"',
    "event.body.items.exists(i, i.n > 8)",
    'has(event.body.user) && event.body.user.id == 7 && event.type == "push"',
)


def event() -> Event:
    now = datetime.now(UTC)
    body = parse_body(BODY.encode())
    return Event(id="1", type="push", endpoint="e", namespace="n", received_at=now, headers={}, body=body)


def main() -> None:
    for source in SOURCES:
        expression = compile_source(source, "bool")
        assert isinstance(expression, Expression)
        count = 20_000
        began = time.process_time()
        for _ in range(count):
            expression.evaluate(event())
        print(f"{count / (time.process_time() - began):10,.0f}/s of CPU time, each with its event parsed: {source}")


if __name__ == "__main__":
    main()
