"""What is wrong with a host's sidecars, and the command that mends it: findings from what they tell of themselves.

Pure: documents of admin sockets in, findings out. `mesh doctor` collects the documents and prints the findings; what
only a certificate tells is `certs.expiry`'s, what a container engine or a cluster tells is found by the rooms of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sidecar.deploy.cluster.escaped import Escaped
    from sidecar.deploy.compose.engine import Container
    from sidecar.deploy.compose.verify import Finding as Knock

Level = Literal["wrong", "warning"]
DESCRIPTORS_NEAR = 0.8  # of the limit; at 0.9 new connections are refused (decision D25)
SURVIVAL_SHORT = 6 * 3600.0  # seconds without its CA: less than a night


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should mend. `wrong`: traffic is refused, unprotected or about to be; or `warning`."""

    level: Level
    where: str  # "orders", "compose project shop", "pod shop/orders-7f"
    what: str
    mend: str  # a command, or words where none does it

    def as_json(self) -> dict[str, str]:
        """Its fields by name."""
        return {"level": self.level, "where": self.where, "what": self.what, "mend": self.mend}


def of_sidecar(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What a sidecar's `/status` tells that somebody should mend."""
    name = str(status.get("service"))
    if status.get("state") == "unreachable":
        yield Finding(
            "wrong", name, f"its admin socket is there, and nobody answers: {status.get('detail')}",
            f"start it again: mesh run --service {name}; if it is gone for good, remove the socket's file",
        )  # fmt: skip
        return
    reasons = [str(reason) for reason in status.get("not_ready") or []]
    if status.get("state") == "draining":
        yield Finding("warning", name, "it drains", f"wait, or look: mesh status --service {name}")
    elif reasons or status.get("state") != "ready":
        why = "; ".join(reasons) or f"its state is {status.get('state')}"
        yield Finding("wrong", name, f"not ready: {why}", f"mesh status --service {name}")
    yield from _of_identity(name, status.get("identity") or {})
    yield from _of_config(name, (status.get("config") or {}).get("last_reload") or {})
    for listener in status.get("listeners") or []:
        yield from _of_listener(name, listener)
    yield from _of_process(name, status)


def _of_identity(name: str, identity: Mapping[str, Any]) -> Iterator[Finding]:
    if not identity.get("serial"):
        error = identity.get("last_error") or "no answer yet"
        yield Finding(
            "wrong", name, f"it has no certificate: {error}",
            "is the CA up (mesh ca status)? is the enrolment file its own?",
        )  # fmt: skip
        return
    if identity.get("ca_connected") is False:
        left = float(identity.get("ca_survival_seconds") or 0.0)
        level: Level = "wrong" if left < SURVIVAL_SHORT else "warning"
        yield Finding(
            level, name, f"it does not reach its CA, and lives {left / 3600:.1f} h without it",
            "is it up? mesh ca status",
        )  # fmt: skip
    for key, mend in (
        ("denylist_error", "mesh ca status; is this sidecar's bundle the CA's own?"),
        ("bundle_error", "compare: mesh ca status, and `mesh ca enrolment` for a file of today"),
    ):
        if identity.get(key):
            yield Finding("wrong", name, str(identity[key]), mend)


def _of_config(name: str, reload: Mapping[str, Any]) -> Iterator[Finding]:
    mistakes = [str(each) for each in reload.get("mistakes") or []]
    if reload.get("result") == "failed" and mistakes:
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        what = f"its last reload was refused, the config before it holds: {mistakes[0]}{more}"
        yield Finding("wrong", name, what, "mesh check")


def _of_listener(name: str, listener: Mapping[str, Any]) -> Iterator[Finding]:
    declared, hops = listener.get("declared_posture"), int(listener.get("would_refuse") or 0)
    if not declared:
        return
    until = f"{str(listener.get('until'))[:19]}Z"
    if listener.get("posture") == "strict":
        what = f"the {declared} posture of listener {listener.get('name')} has ended at {until}"
        yield Finding("warning", name, what, "take `posture` and `until` out of mesh.yaml: they do nothing any more")
    else:
        what = f"listener {listener.get('name')} is {declared} until {until}; strict would have refused {hops} hops"
        yield Finding("warning", name, what, "who they are: mesh migrate status; then take `posture` out of mesh.yaml")


def _of_process(name: str, status: Mapping[str, Any]) -> Iterator[Finding]:
    hygiene, engine = status.get("hygiene") or {}, status.get("engine") or {}
    if hygiene.get("note"):
        yield Finding("warning", name, str(hygiene["note"]), "docs/security.md says what each of them protects against")
    limit, used = int(hygiene.get("open_files") or 0), int(engine.get("descriptors") or 0)
    if limit and used > DESCRIPTORS_NEAR * limit:
        yield Finding(
            "wrong", name, f"{used} of {limit} file descriptors are in use; at 90 % new connections are refused",
            "raise its limit (ulimit -n, or LimitNOFILE), or find who holds them: mesh top",
        )  # fmt: skip


def of_versions(statuses: Sequence[Mapping[str, Any]], ours: str) -> Iterator[Finding]:
    """Sidecars of another version than this command."""
    for status in statuses:
        theirs = str(status.get("version") or "")
        if theirs and theirs != ours:
            yield Finding(
                "warning", str(status.get("service")), f"it is version {theirs}, this command {ours}",
                "restart it with the new version; one copy at a time loses no request",
            )  # fmt: skip


def of_certificates(rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What `mesh certs check` says no to."""
    for row in rows:
        if not row["ok"]:
            mend = "mesh ca rotate-root --plan" if row["link"] == "root" else f"mesh certs rotate {row['of']}"
            yield Finding("wrong", str(row["of"]), f"{row['link']}: {row['detail']}", mend)


def of_containers(containers: Sequence[Container], image: str, file: str) -> Iterator[Finding]:
    """What docker tells of the containers of a project that was injected."""
    if not any(each.part for each in containers):
        yield Finding("wrong", file, "its project runs without the mesh", f"mesh compose inject {file} --diff")
    for each in containers:
        done = each.status == "exited" and each.exit_code == 0
        if each.status != "running" and not (done and each.part in ("", "keys")):
            what = f"its container is {each.status}" + (f" ({each.exit_code})" if each.status == "exited" else "")
            yield Finding("wrong", each.name, what, f"docker logs {each.name}; then docker start {each.name}")
        elif each.health == "unhealthy":
            yield Finding("wrong", each.name, "its health check fails", f"docker logs {each.name}")
        if each.part in ("sidecar", "door", "ca", "holder") and each.image != image:
            what = f"its image is {each.image}, that of this command {image}"
            yield Finding("warning", each.name, what, f"mesh up --compose {file}")


def of_knocks(knocks: Sequence[Knock]) -> Iterator[Finding]:
    """What answered somebody without an identity, from a network of the project."""
    for knock in knocks:
        if not knock.good:
            what = f"port {knock.port} answers past the mesh on {knock.network} ({knock.answer})"
            yield Finding("wrong", knock.service, what, "mesh compose verify tells more")


def of_pods(escaped: Sequence[Escaped]) -> Iterator[Finding]:
    """Pods that escaped injection, or whose sidecar is of another version."""
    from sidecar.deploy.cluster.escaped import WORDS

    for each in escaped:
        level: Level = "warning" if each.why in ("old-version", "opted-out") else "wrong"
        detail = f": {each.detail}" if each.detail else ""
        yield Finding(level, f"pod {each.namespace}/{each.pod}", f"{WORDS[each.why]}{detail}", each.mend)
