"""The names of all metrics that processes of kapsel have, asked of the processes' own registries."""

import re
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from kapsel_attestor.metrics import Metrics as AttestorMetrics
from kapsel_console.metrics import Metrics as ConsoleMetrics
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_operator.metrics import Metrics as OperatorMetrics
from kapsel_receiver.metrics import Metrics as ReceiverMetrics

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
# What is no metric in an expression of PromQL, apart from labels and words before a parenthesis.
_WORDS = {"by", "unless", "and", "or", "on", "bool", "ignoring", "without"}


def _operator(registry: CollectorRegistry) -> None:
    OperatorMetrics(registry).show(lambda: {("Relay", "True"): 1})


def _names(*fill: Callable[[CollectorRegistry], object]) -> set[str]:
    found: set[str] = set()
    for one in fill:
        registry = CollectorRegistry()
        one(registry)
        for family in registry.collect():
            found |= {family.name + suffix for suffix in _SUFFIXES[family.type]}
    return found


# The client library's own are there too, in every process.
METRICS = _names(AttestorMetrics, ConsoleMetrics, DelivererMetrics, _operator, ReceiverMetrics) | {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression of PromQL reads."""
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expression)
    text = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", text)
    return {word for word in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w*\s*\()", text) if word not in _WORDS}
