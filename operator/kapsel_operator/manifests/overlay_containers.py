"""Containers of a `podTemplate`: more of them, and what may be changed in those of kapsel's.

Called by `overlay`. A container of kapsel's keeps its command, ports, settings and secrets whatever is added; others
see none of its secrets.
"""

from collections.abc import Mapping
from typing import Any, Final

from kapsel_operator.manifests import quantities
from kapsel_operator.manifests.facts import Manifest
from kapsel_operator.manifests.refusals import Path, Refusals, deep

_REPLACED: Final = (
    "envFrom",
    "image",
    "imagePullPolicy",
    "resources",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeDevices",
)
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_TIMING: Final = ("failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds")
_SETTABLE: Final = ", ".join(sorted((*_REPLACED, *_PROBES, "env", "securityContext", "volumeMounts")))


def merge_containers(ours: Manifest, added: object, added_init: object, refusals: Refusals) -> Manifest:
    """Return both lists of containers of a pod's spec: ours first, with what is added to them, then the others."""
    secret = frozenset(volume["name"] for volume in ours["volumes"])
    model = ours["containers"][0]
    merged: Manifest = {}
    names: set[str] = {one["name"] for one in ours.get("initContainers", ())}
    for key, more in (("containers", added), ("initContainers", added_init)):
        found = {one["name"]: one for one in ours.get(key, ())}
        own = frozenset(found)
        for path, name, item in refusals.named(more, ("spec", key)):
            if name in own:
                found[name] = _changed(found[name], item, path, secret, refusals)
            elif name in names:
                refusals.add(path, f"another list of this pod has a container {name}", f"{name} there, or another name")
            else:
                found[name] = _another(item, model, path, secret, refusals)
        names = set(found)
        if found:
            merged[key] = list(found.values())
    return merged


def _changed(ours: Manifest, added: Manifest, path: Path, secret: frozenset[str], refusals: Refusals) -> Manifest:
    """Return a container of kapsel's with what may be changed in it."""
    merged = dict(ours)
    for key, value in added.items():
        where = (*path, key)
        if key == "name" or value is None:
            continue
        if key in _REPLACED:
            merged[key] = quantities.resources(value) if key == "resources" else value
        elif key == "env":
            merged[key] = _env(ours["env"], value, where, refusals)
        elif key == "volumeMounts":
            merged[key] = _mounts(ours[key], value, where, secret, refusals)
        elif key == "securityContext":
            merged[key] = deep(ours[key], refusals.mapping(value, where))
        elif key in _PROBES and key in ours:
            merged[key] = _probe(ours[key], refusals.mapping(value, where), where, refusals)
        else:
            refusals.add(where, f"{key} of a container of kapsel's cannot be changed", _SETTABLE)
    return merged


def _env(ours: list[Manifest], added: object, path: Path, refusals: Refusals) -> list[Manifest]:
    merged = list(ours)
    taken = {one["name"] for one in ours}
    for where, name, variable in refusals.named(added, path):
        if name in taken:
            refusals.add(where, f"kapsel sets {name} itself", "other variables")
        else:
            merged.append(variable)
    return merged


def _mounts(
    ours: list[Manifest], added: object, path: Path, secret: frozenset[str], refusals: Refusals
) -> list[Manifest]:
    merged = list(ours)
    taken = {one["mountPath"] for one in ours}
    for where, target, mount in refusals.named(added, path, "mountPath"):
        if target in taken or mount.get("name") in secret:
            refusals.add(where, "kapsel's own volumes are mounted where kapsel needs them", "other volumes and paths")
        else:
            merged.append(mount)
    return merged


def _probe(ours: Manifest, added: Mapping[str, Any], path: Path, refusals: Refusals) -> Manifest:
    merged = dict(ours)
    for key, value in added.items():
        if key in _TIMING:
            merged[key] = value
        else:
            refusals.add((*path, key), f"{key} of a probe of kapsel's cannot be changed", ", ".join(_TIMING))
    return merged


def _another(added: Manifest, model: Manifest, path: Path, secret: frozenset[str], refusals: Refusals) -> Manifest:
    """Return a container that is not kapsel's; without an image it runs kapsel's, with all its restrictions.

    What the restricted level of Pod Security asks of each container is there unless the container says otherwise.
    """
    merged = {key: value for key, value in added.items() if value is not None}
    security = dict(model["securityContext"])
    if "image" in merged:
        del security["readOnlyRootFilesystem"]  # foreign programs may write where they like
    else:
        merged |= {"image": model["image"], "imagePullPolicy": model["imagePullPolicy"]}
    given = refusals.mapping(merged.get("securityContext"), (*path, "securityContext"))
    merged["securityContext"] = deep(security, given)
    if "resources" in merged:
        merged["resources"] = quantities.resources(merged["resources"])
    if "volumeMounts" in merged:
        merged["volumeMounts"] = _mounts([], merged["volumeMounts"], (*path, "volumeMounts"), secret, refusals)
    return merged
