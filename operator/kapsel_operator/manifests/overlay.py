"""What `podTemplate` of a Relay adds to the pods: merged by name, and never able to take away what kapsel needs.

The template comes from whoever owns the Relay, in any shape at all: what does not fit is left out and told, each with
its path, and the rest is used. What the API server thinks of the result is left to the API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kapsel_operator.manifests.facts import Manifest
from kapsel_operator.manifests.overlay_containers import merge_containers
from kapsel_operator.manifests.refusals import Path, Refusals, Refused, deep
from kapsel_resources.kinds.workload import PodTemplate

GRACE: Final = "terminationGracePeriodSeconds"
# What is used as it is given: kapsel sets none of these.
_ADDED: Final = (
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "hostUsers",
    "nodeSelector",
    "os",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "tolerations",
)
_MERGED: Final = (
    "containers",
    "imagePullSecrets",
    "initContainers",
    "securityContext",
    GRACE,
    "topologySpreadConstraints",
    "volumes",
)
_SETTABLE: Final = ", ".join(sorted((*_ADDED, *_MERGED)))


@dataclass(frozen=True, slots=True)
class Merged:
    """A pod template with what was added to it, and what was not."""

    template: Manifest
    refused: tuple[Refused, ...]


def merge(template: Manifest, added: PodTemplate) -> Merged:
    """Return our template with what the Relay's owner adds; neither is changed."""
    refusals = Refusals()
    metadata = _metadata(template["metadata"], added.get("metadata", {}), refusals)
    spec = _spec(template["spec"], added.get("spec", {}), refusals)
    return Merged({"metadata": metadata, "spec": spec}, tuple(refusals.found))


def grace(added: PodTemplate) -> timedelta | None:
    """Return the time that a podTemplate gives a pod for its end, if it does and it can be meant."""
    seconds = added.get("spec", {}).get(GRACE)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 <= seconds <= 86_400:
        return None
    return timedelta(seconds=seconds)


def _metadata(ours: Manifest, added: Mapping[str, Any], refusals: Refusals) -> Manifest:
    merged = dict(ours)
    for key, value in added.items():
        if key in ("labels", "annotations"):
            merged[key] = _texts(ours[key], refusals.mapping(value, ("metadata", key)), key, refusals)
        else:
            refusals.add(("metadata", key), f"{key} cannot be set here", "labels, annotations")
    return merged


def _texts(ours: Mapping[str, str], added: Mapping[str, Any], what: str, refusals: Refusals) -> dict[str, str]:
    merged = dict(ours)
    for key, value in added.items():
        path: Path = ("metadata", what, key)
        if not isinstance(value, str):
            refusals.add(path, "this is not a string", "a string; YAML reads unquoted numbers, true and false as such")
        elif ours.get(key, value) != value:
            refusals.add(path, "kapsel sets this itself", f"{what} of other names")
        else:
            merged[key] = value
    return merged


def _spec(ours: Manifest, added: Mapping[str, Any], refusals: Refusals) -> Manifest:
    merged = dict(ours)
    for key, value in added.items():
        if key in _ADDED and value is not None:
            merged[key] = value
        elif key not in _ADDED and key not in _MERGED:
            refusals.add(("spec", key), f"{key} cannot be set here", _SETTABLE)
    if added.get(GRACE, ours[GRACE]) != ours[GRACE]:
        _refuse_grace(added[GRACE], ours[GRACE], refusals)
    merged |= merge_containers(ours, added.get("containers"), added.get("initContainers"), refusals)
    merged["securityContext"] = deep(
        ours["securityContext"], refusals.mapping(added.get("securityContext"), ("spec", "securityContext"))
    )
    merged["volumes"] = _volumes(ours["volumes"], added.get("volumes"), refusals)
    for key, name in (("imagePullSecrets", "name"), ("topologySpreadConstraints", "topologyKey")):
        if lists := _by_name(ours.get(key, []), added.get(key), ("spec", key), name, refusals):
            merged[key] = lists
    return merged


def _refuse_grace(asked: object, used: int, refusals: Refusals) -> None:
    wrong = f"{asked!r} is too short for a pod to finish its work, or not a number of seconds"
    refusals.add(("spec", GRACE), wrong, f"whole seconds; {used} are used")


def _volumes(ours: list[Manifest], added: object, refusals: Refusals) -> list[Manifest]:
    merged = list(ours)
    taken = {one["name"] for one in ours}
    for path, name, volume in refusals.named(added, ("spec", "volumes")):
        if name in taken:
            refusals.add(path, f"{name} is a volume of kapsel's", "another name")
        else:
            merged.append(volume)
    return merged


def _by_name(ours: list[Manifest], added: object, path: Path, key: str, refusals: Refusals) -> list[Manifest]:
    """What is added takes the place of ours of the same name."""
    merged = {one[key]: one for one in ours}
    merged |= {name: item for _, name, item in refusals.named(added, path, key)}
    return list(merged.values())
