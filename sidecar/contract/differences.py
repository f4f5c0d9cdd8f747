"""What callers say they use of a contract, beside what its service grants them: `mesh grants diff`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sidecar.config.mistakes import nearest

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_contract import Grant


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is used without a grant (`missing`), or granted and not used (`unused`)."""

    caller: str
    service: str
    kind: Literal["operation", "field"]
    name: str
    what: Literal["missing", "unused"]
    near: str = ""  # what is granted and perhaps meant


def differences(config: MeshConfig) -> list[Difference]:
    """All of them between services of one file that say what they consume, in its order."""
    found: list[Difference] = []
    for caller, service in config.services.items():
        for outbound in service.outbound:
            called = config.services.get(outbound.to)
            if outbound.consumes is not None and called is not None and outbound.identity == called.identity:
                found += _between(caller, service, called, outbound.consumes)
    return found


def _between(caller: str, service: Service, called: Service, consumed: Grant) -> Iterator[Difference]:
    grants = [grant for pattern, grant in called.grants.items() if pattern.matches(service.identity)]
    operations = {name for grant in grants for name in grant.operations}
    fields = {name for grant in grants for name in grant.fields}
    for name in sorted(set(consumed.operations) - operations):
        yield Difference(caller, called.name, "operation", name, "missing", nearest(name, sorted(operations)) or "")
    for name in sorted(set(consumed.fields)):
        if not any(covers(each, name) for each in fields):
            yield Difference(caller, called.name, "field", name, "missing", nearest(name, sorted(fields)) or "")
    for name in sorted(operations - set(consumed.operations)):
        yield Difference(caller, called.name, "operation", name, "unused")
    for name in sorted(fields):
        if not any(covers(name, each) for each in consumed.fields):
            yield Difference(caller, called.name, "field", name, "unused")


def covers(granted: str, used: str) -> bool:
    """Whether a path of fields lets another one pass."""
    return granted in ("**", used) or (granted.endswith(".**") and used.startswith(granted[:-2]))
