"""What may be asked of an upstream (`outbound[].allow`): methods and canonical paths; whatever else is refused.

The path is read for this alone, as an inbound listener with every leniency would read it; what was received is sent on
(decision D4). One that has two readings even so cannot be told to be on the list or not, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sidecar.errors import EgressDenied
from sidecar.http.canonical import Leniency, canonical_target

if TYPE_CHECKING:
    from sidecar.config.schema_egress import EgressRule

# No `;` and no empty or encoded segment: the third party may read those as other paths than we do.
READING: Final = Leniency()


class EgressRules:
    """The list of one upstream."""

    def __init__(self, name: str, rules: Sequence[EgressRule]) -> None:
        self._name = name
        self._rules = tuple(rules)

    def check(self, method: str, target: bytes) -> None:
        """Judge a request target as it is sent on. Raises EgressDenied, and AmbiguousPath and its kind."""
        read = canonical_target(target, method, leniency=READING)
        for rule in self._rules:
            known = not rule.methods or method in rule.methods
            if known and (not rule.paths or any(path.matches(read.segments) for path in rule.paths)):
                return
        path = (read.path or b"/").decode("ascii")
        detail = f"{method} {path} is none of what the upstream {self._name} may be asked for"
        raise EgressDenied(detail, hint(self._name, method, path))


def hint(name: str, method: str, path: str) -> str:
    """The YAML that would allow it."""
    quoted = path.replace("'", "''")
    return f"outbound: [{{to: {name}, allow: [{{method: {method}, path: '{quoted}'}}]}}]"
