"""Whole files in, whole files out: every pod in them with a sidecar, or every mistake and nothing done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from sidecar.deploy.kube import patch, policy
from sidecar.deploy.kube.annotations import ANNOTATIONS, BY_KEY, Settings
from sidecar.deploy.kube.documents import BadYaml, Document, split
from sidecar.deploy.kube.pod import Outcome, Result, inject, uninject
from sidecar.deploy.kube.problems import Findings, Pod, Problem, dotted
from sidecar.deploy.kube.told import Around
from sidecar.deploy.kube.workloads import Held, at, pods_in


@dataclass(frozen=True, slots=True)
class Found:
    """One mistake or warning, with its line."""

    file: str
    line: int
    whose: str  # `Deployment/web`; empty where the document cannot be read
    path: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        place = ": ".join(part for part in (f"{self.file}:{self.line}", self.whose, self.path) if part)
        return f"{place}: {self.what}" + (f"; {self.advice}" if self.advice else "")

    def to_json(self) -> dict[str, object]:
        """For `-o json`."""
        return {
            "file": self.file, "line": self.line, "workload": self.whose, "path": self.path, "message": self.what,
            "hint": self.advice,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one pod."""

    file: str
    line: int
    whose: str
    outcome: Outcome
    service: str = ""
    mode: str = ""
    was: str = ""

    def to_json(self) -> dict[str, object]:
        """For `-o json`."""
        return {
            "file": self.file, "line": self.line, "workload": self.whose, "outcome": self.outcome,
            "service": self.service, "mode": self.mode, "was": self.was,
        }  # fmt: skip


@dataclass(slots=True)
class Outlook:
    """One file, what became of its pods, and what was found. With mistakes, `text` is the file as it was."""

    file: str
    text: str
    done: list[Done] = field(default_factory=list)
    mistakes: list[Found] = field(default_factory=list)
    warnings: list[Found] = field(default_factory=list)


def work(
    file: str,
    text: str,
    options: Mapping[str, str] | None = None,
    *,
    take_out: bool = False,
    around: Around | None = None,
) -> Outlook:
    """Inject every pod in this text, or with `take_out` take our sidecars out. Nothing is changed by halves. `around`
    is what the pods are compared with.
    """
    outlook = Outlook(file, text)
    worker = _Worker(outlook, options or {}, take_out, around or Around())
    worker.unreadable()
    documents = split(text)
    kept = [document for document in documents if worker.document(document)]
    if outlook.mistakes:
        return outlook
    for document, operations in worker.changes:
        document.change(operations)
    outlook.text = _join([document.text for document in kept], [_dump(each) for each in worker.policies])
    return outlook


@dataclass(slots=True)
class _Worker:
    outlook: Outlook
    options: Mapping[str, str]
    take_out: bool
    around: Around
    changes: list[tuple[Document, list[patch.Operation]]] = field(default_factory=list)
    policies: list[dict[str, Any]] = field(default_factory=list)

    def unreadable(self) -> None:
        """Say which mesh.yaml in this file pods cannot be compared with."""
        for told in self.around.broken_in(self.outlook.file):
            what = f"this mesh.yaml has mistakes, so no pod is compared with it: {told.broken}"
            found = Found(told.file, told.line, f"ConfigMap/{told.name}", "data", what, "`mesh check` shows them all")
            self.outlook.warnings.append(found)

    def document(self, document: Document) -> bool:
        """Look at one document; false where it is an earlier policy of ours, which is written anew at the end."""
        try:
            document.read()
        except BadYaml as error:
            self.outlook.mistakes.append(
                Found(self.outlook.file, error.line, "", "", f"this YAML cannot be read: {error}", "nothing was done")
            )
            return True
        operations: list[patch.Operation] = []
        for held in pods_in(document.plain):
            try:
                operations += self._pod(document, held)
            except RecursionError:
                self._note(document, held, self.outlook.mistakes, Problem((), "this is nested too deeply"))
        if operations:
            self.changes.append((document, operations))
        return not policy.is_ours(document.plain)

    def _pod(self, document: Document, held: Held) -> list[patch.Operation]:
        pod = at(document.plain, held.place)
        if not isinstance(pod, dict):
            self._note(document, held, self.outlook.mistakes, Problem((), "there is no pod template"))
            return []
        whole = {key: pod[key] for key in ("metadata", "spec") if key in pod}
        result = uninject(whole) if self.take_out else inject(whole, self.options)
        if result.settings is not None and result.outcome in ("injected", "unchanged"):
            result = self._compared(document, held, whole, result, result.settings)
        if result.settings is not None and result.outcome in ("injected", "unchanged"):
            result = self._guarded(document, held, whole, result, result.settings)
            self._misplaced(document, held)
        for problem in result.mistakes:
            self._note(document, held, self.outlook.mistakes, problem)
        for problem in result.warnings:
            self._note(document, held, self.outlook.warnings, problem)
        service, mode = (result.settings["service"], result.settings["mode"]) if result.settings else ("", "")
        line = document.place(held.place)
        self.outlook.done.append(Done(self.outlook.file, line, held.whose, result.outcome, service, mode, result.was))
        return patch.diff(whole, result.pod, held.place)

    def _compared(self, document: Document, held: Held, pod: Pod, result: Result, settings: Settings) -> Result:
        """Refuse a pod that does not fit its mesh.yaml."""
        findings = Findings(list(result.mistakes), list(result.warnings))
        namespace = at(document.plain, (*held.workload, "metadata", "namespace"))
        self.around.compare(settings, namespace if isinstance(namespace, str) else "", findings)
        if findings.mistakes:
            return Result(pod, "refused", tuple(findings.mistakes), tuple(findings.warnings))
        return replace(result, warnings=tuple(findings.warnings))

    def _guarded(self, document: Document, held: Held, pod: Pod, result: Result, settings: Settings) -> Result:
        """With mode `explicit`, note the policy that goes with the pod."""
        if settings["mode"] != "explicit":
            return result
        findings = Findings()
        made = policy.network_policy(at(document.plain, held.workload), pod, settings, ("metadata",), findings)
        if made is None:
            return Result(pod, "refused", tuple(findings.mistakes), result.warnings)
        self.policies.append(made)
        return result

    def _misplaced(self, document: Document, held: Held) -> None:
        """Say so where annotations of ours stand on the workload, which no webhook sees, and not on its pods."""
        if held.place == held.workload:
            return
        workload = at(document.plain, (*held.workload, "metadata", "annotations"))
        for key in workload if isinstance(workload, dict) else ():
            if isinstance(key, str) and key in BY_KEY:
                above = Held(held.workload, held.workload, held.whose)
                way = dotted((*held.place[len(held.workload) :], *ANNOTATIONS))
                where = f"it belongs to the pods: move it to {way}"
                problem = Problem((*ANNOTATIONS, key), "this annotation says nothing here", where)
                self._note(document, above, self.outlook.warnings, problem)

    def _note(self, document: Document, held: Held, target: list[Found], problem: Problem) -> None:
        place = (*held.place, *problem.place)
        line = document.place(place)
        target.append(Found(self.outlook.file, line, held.whose, dotted(place), problem.what, problem.advice))


def _dump(document: dict[str, Any]) -> str:
    return "---\n" + str(yaml.safe_dump(document, sort_keys=False))


def _join(texts: list[str], further: list[str]) -> str:
    joined = "".join(texts)
    if further and joined and not joined.endswith("\n"):
        joined += "\n"
    return joined + "".join(further)
