"""A pod in, the same pod with a sidecar out. `mesh inject` and the webhook both call `inject`.

In order: take away what an earlier injection has added; read the annotations; refuse what cannot be; move the probes;
put the redirect step and the sidecar before every other init container; add the volumes; write the record.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sidecar import __version__
from sidecar.deploy.kube import containers, probes, refusals
from sidecar.deploy.kube.annotations import ANNOTATIONS, BY_KEY, RECORD, Settings, annotations_of, read
from sidecar.deploy.kube.problems import Findings, Pod, Problem
from sidecar.deploy.kube.record import Record, is_injected, record_of, take_away
from sidecar.deploy.names import CONTAINER, INIT_CONTAINER, PREFIX

Outcome = Literal["injected", "unchanged", "skipped", "uninjected", "refused"]
_DEFAULT_ACCOUNT: Final = "default"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a pod. Where it was refused, `pod` is the one that came in."""

    pod: Pod
    outcome: Outcome
    mistakes: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    settings: Settings | None = field(default=None, compare=False)
    was: str = ""  # the version that had injected it before


def inject(pod: Pod, options: Mapping[str, str] | None = None) -> Result:
    """The pod with a sidecar. `options` are annotations (without prefix) for pods that do not say otherwise; those in
    force are written on the pod, so that it says itself what it is. Nothing that was given is changed.
    """
    findings = Findings()
    if not refusals.shape(pod, findings):
        return _refused(pod, findings)
    record = record_of(pod, findings)
    clean = copy.deepcopy(pod) if record is None else take_away(pod, record)
    written = _write(clean, options or {})
    settings = _settings(clean, findings)
    was = "" if record is None else record.version
    if not settings["inject"] and not findings.mistakes:
        plain = pod if record is None else take_away(pod, record)
        return Result(plain, "skipped" if record is None else "uninjected", (), tuple(findings.warnings), settings, was)
    volumes = containers.volumes(settings)
    refusals.look(clean, settings, volumes, findings)
    moved = probes.Moved()
    if settings["rewrite-probes"]:
        _move_probes(clean["spec"], settings, moved, findings)
    if findings.mistakes:
        return _refused(pod, findings)
    added = _add(clean["spec"], settings, volumes, moved)
    names = tuple(volume["name"] for volume in volumes)
    wrote = Record(__version__, added, names, written, moved.originals)
    annotations = clean.setdefault("metadata", {}).setdefault("annotations", {})
    annotations[RECORD] = wrote.text()
    outcome: Outcome = "unchanged" if clean == pod else "injected"
    return Result(clean, outcome, (), tuple(findings.warnings), settings, was)


def uninject(pod: Pod) -> Result:
    """The pod without our sidecar; as it was where it has none."""
    findings = Findings()
    record = record_of(pod, findings)
    if findings.mistakes:
        return _refused(pod, findings)
    if record is None:
        if is_injected(pod):
            what = f"there is a container {CONTAINER!r}, but no annotation {RECORD} that says what was added with it"
            findings.refuse(("spec", "initContainers"), what, "take it out by hand")
            return _refused(pod, findings)
        return Result(pod, "unchanged")
    return Result(take_away(pod, record), "uninjected", was=record.version)


def _refused(pod: Pod, findings: Findings) -> Result:
    return Result(pod, "refused", tuple(findings.mistakes), tuple(findings.warnings))


def _write(pod: Pod, options: Mapping[str, str]) -> tuple[str, ...]:
    """Write the options that this pod does not answer itself as annotations; their keys."""
    said = annotations_of(pod)
    wanted = {f"{PREFIX}/{name}": value for name, value in sorted(options.items())}
    written = tuple(key for key in wanted if key not in said)
    for key in written:
        assert key in BY_KEY
        metadata = pod.get("metadata")
        if metadata is None:
            metadata = pod["metadata"] = {}
        if metadata.get("annotations") is None:
            metadata["annotations"] = {}
        metadata["annotations"][key] = wanted[key]
    return written


def _settings(pod: Pod, findings: Findings) -> Settings:
    """The annotations, and which service this is. Raises nothing: what cannot be is in `findings`."""
    settings = read(pod, findings)
    account = pod["spec"].get("serviceAccountName") or pod["spec"].get("serviceAccount") or _DEFAULT_ACCOUNT
    service = settings["service"]
    if service is None and settings["inject"] and account == _DEFAULT_ACCOUNT:
        findings.refuse(
            ("spec",),
            "the pod names no service account, and by the one that all pods share nobody can tell who it is",
            "set serviceAccountName, and make one with kubectl create serviceaccount",
        )
    elif account == _DEFAULT_ACCOUNT and settings["inject"]:
        findings.warn(
            (*ANNOTATIONS, f"{PREFIX}/service"),
            "the service account `default` proves nothing but the namespace: every pod there may call itself this",
            "give the service an account of its own",
        )
    return Settings({**settings.values, "service": service or account})


def _move_probes(spec: dict[str, Any], settings: Settings, moved: probes.Moved, findings: Findings) -> None:
    for key in ("initContainers", "containers"):
        probes.move(spec.get(key) or [], ("spec", key), settings["health-port"], moved, findings)


def _add(
    spec: dict[str, Any], settings: Settings, volumes: list[dict[str, Any]], moved: probes.Moved
) -> tuple[str, ...]:
    """Add everything, in place; the names of the containers that were added."""
    first = [containers.redirect(settings)] if settings["mode"] == "redirect" else []
    ours = [*first, containers.sidecar(settings, moved.asked)]
    spec["initContainers"] = [*ours, *(spec.get("initContainers") or [])]
    spec["volumes"] = [*(spec.get("volumes") or []), *volumes]
    assert {each["name"] for each in ours} <= {CONTAINER, INIT_CONTAINER}
    return tuple(each["name"] for each in ours)
