"""The pods of a Relay: how many there are, how large they are, and what the owner of a cluster adds to them."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from kapsel_resources.durations import Duration
from kapsel_resources.kinds.model import NULL_IS_ABSENT, QUANTITY, LabelKey, Members, Model, broken
from kapsel_resources.rules import Rule

_MIN_REPLICAS: Final = 2
_LONGEST: Final = 32  # characters of a quantity
_DEEPEST: Final = 32  # levels of a pod template; real ones have about 12, and no schema can bound what is opaque
_RESOURCES_DESCRIPTION: Final = (
    "What a container asks for and may use at most, as everywhere in Kubernetes. Only a cluster reads this."
)


def _text(value: object) -> object:
    """A quantity may be a whole number, as `cpu: 2` is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _shallow(value: object) -> object:
    """Refuse what is nested deeper than any pod, level by level: those who pass it on may recurse."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
    if level:
        broken(f"it is nested more than {_DEEPEST} levels deep", "what a PodTemplateSpec can hold")
    return value


def _inside(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()


Quantity = Annotated[
    str,
    BeforeValidator(_text),
    Field(max_length=_LONGEST, pattern=QUANTITY),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": _LONGEST,
            "pattern": QUANTITY,
        }
    ),
]
ResourceRequirements = Annotated[
    dict[Literal["limits", "requests"], Annotated[dict[LabelKey, Quantity], NULL_IS_ABSENT, Field(max_length=16)]],
    NULL_IS_ABSENT,
    Members(
        limits="How much of each resource a container may use at most, such as memory: 256Mi.",
        requests="How much of each resource is set aside for a container, such as cpu: 100m.",
    ),
]
# Whatever a PodTemplateSpec of any version of Kubernetes may hold: the API server judges it when the pods are made.
PodTemplate = Annotated[
    dict[Literal["metadata", "spec"], Annotated[dict[str, JsonValue], Field(max_length=64)]],
    NULL_IS_ABSENT,
    BeforeValidator(_shallow),
    Members(metadata="Labels and annotations of the pods.", spec="What a PodSpec may hold."),
]


class Autoscaling(Model):
    """How many replicas there may be, and what decides."""

    RULES = (
        Rule(
            f"(has(self.minReplicas) ? self.minReplicas : {_MIN_REPLICAS}) <= self.maxReplicas",
            "minReplicas is more than maxReplicas",
            "minReplicas",
        ),
        Rule(
            "!has(self.targetAge) || (has(self.type) && self.type == 'KEDA')",
            "targetAge has no meaning for any type but KEDA",
            "targetAge",
        ),
        Rule(
            "!has(self.targetCPUUtilization) || !has(self.type) || self.type == 'HPA'",
            "targetCPUUtilization has no meaning for any type but HPA",
            "targetCPUUtilization",
        ),
    )

    type: Literal["HPA", "KEDA"] = Field(
        default="HPA",
        description=(
            "HPA: by CPU. KEDA: by how long the oldest delivery waits that could be tried now; KEDA must be installed."
        ),
    )
    min_replicas: int = Field(default=_MIN_REPLICAS, ge=1, le=1000, description="Never fewer.")
    max_replicas: int = Field(ge=1, le=1000, description="Never more.")
    target_cpu_utilization: int = Field(
        default=70,
        ge=1,
        le=1000,
        alias="targetCPUUtilization",
        description="HPA: how much of the CPU that a pod requests it uses on average, in percent.",
    )
    target_age: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="KEDA: how long a delivery that could be tried may wait before there are more pods.",
    )

    @model_validator(mode="after")
    def _coherent(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            broken("minReplicas is more than maxReplicas", "minReplicas up to maxReplicas", "minReplicas")
        other, name = ("KEDA", "target_age") if self.type == "HPA" else ("HPA", "target_cpu_utilization")
        if name in self.model_fields_set:
            alias = type(self).model_fields[name].alias or name
            broken(f"{alias} has no meaning for the type {self.type}", f"type: {other} beside it", alias)
        return self


class Workload(Model):
    """How many pods, and what they look like. Only a cluster reads this."""

    RULES = (
        Rule(
            "!(has(self.replicas) && has(self.autoscaling))", "replicas and autoscaling exclude each other", "replicas"
        ),
    )

    replicas: int | None = Field(
        default=None, ge=0, le=1000, description="A fixed number. Default: 2, or what autoscaling decides."
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="A number that follows the load, instead of replicas."
    )
    resources: ResourceRequirements | None = Field(default=None, description=_RESOURCES_DESCRIPTION)
    pod_template: PodTemplate | None = Field(
        default=None,
        description=(
            "What to add to the pods, in the shape of a PodTemplateSpec: labels and annotations, nodeSelector, "
            "tolerations, volumes, more containers. Lists with names are merged by name; a container without an image "
            "gets kapsel's."
        ),
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "Workload":
        if self.replicas is not None and self.autoscaling is not None:
            broken("replicas and autoscaling exclude each other", "one of both", "replicas")
        return self


class Attestor(Model):
    """The container that keeps the log. Only a cluster reads this."""

    resources: ResourceRequirements | None = Field(default=None, description=_RESOURCES_DESCRIPTION)
