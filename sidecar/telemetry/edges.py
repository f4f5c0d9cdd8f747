"""Which edges were used, since when and until when: what `mesh inventory` rests on. It outlives the process.

The live table counts hops by kind and forgets a kind that was idle for ten minutes; once a minute what is new there is
added here, and nothing is paid for it in the hop. A file in the state folder keeps it: one JSON object, replaced whole.
What cannot be read is begun anew, and says so: an inventory never keeps a sidecar from starting.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from certs.store import write_private

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.telemetry.table import Row

VERSION: Final = 1
MOST: Final = 4096  # edges; about 300 bytes each in the file
LARGEST: Final = 8 * 1024 * 1024  # bytes of a file that is read


@dataclass(slots=True)
class Edge:
    """Hops of one kind, over all lives of this sidecar. Times are seconds since the epoch."""

    direction: str
    caller: str  # SPIFFE ID; empty for none
    called: str
    listener: str  # that the first of them came by, or the upstream they went to
    protocol: str
    auth: str  # mTLS, or plaintext
    verdict: str  # permit or deny
    rule: str
    route: str
    first: float
    last: float
    count: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it this edge."""
        return (self.direction, self.caller, self.called, self.protocol, self.auth, self.verdict, self.rule, self.route)


class Edges:
    """All edges of one sidecar."""

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.since = now  # when this record begins
        self.left_out = 0  # hops of edges that there was no room for
        self.problem = ""
        self._edges: dict[tuple[str, ...], Edge] = {}
        self._changed = False

    @classmethod
    def load(cls, path: Path, now: float) -> Edges:
        """What an earlier life has kept; `problem` says why where that cannot be read."""
        book = cls(path, now)
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST + 1)
            book._read(json.loads(data) if len(data) <= LARGEST else None)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            book.since, book._edges = now, {}
            book.problem = f"{path.name} cannot be read, so the record of edges begins anew: {type(error).__name__}"
        return book

    def _read(self, document: Any) -> None:
        if document["v"] != VERSION:
            raise ValueError(document["v"])
        self.since, self.left_out = float(document["since"]), int(document["left_out"])
        for each in document["edges"][:MOST]:
            edge = Edge(**each)
            self._edges[edge.key] = edge

    def take(self, rows: Iterable[Row]) -> None:
        """Add what the live table has counted since the last time."""
        for row in rows:
            new = row.requests - row.kept
            if new <= 0:
                continue
            row.kept = row.requests
            self._changed = True
            direction, caller, called, route, verdict, rule, _ = row.key
            auth = "mTLS" if row.tls is not None else "plaintext"
            edge = Edge(
                direction, caller, called, row.listener, row.protocol, auth, verdict, rule, route, row.last_seen,
                row.last_seen,
            )  # fmt: skip
            known = self._edges.get(edge.key)
            if known is None:
                if len(self._edges) >= MOST:
                    self.left_out += new
                    continue
                known = self._edges[edge.key] = edge
            known.count += new
            known.last = max(known.last, row.last_seen)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        edges = [asdict(edge) for edge in self._edges.values()]
        return {"v": VERSION, "since": self.since, "left_out": self.left_out, "edges": edges}

    def unwritten(self) -> bytes | None:
        """What has to be written; None where the file is as it should be."""
        if not self._changed:
            return None
        self._changed = False
        return json.dumps(self.to_json()).encode()

    def write(self, data: bytes) -> None:
        """Replace the file. Blocks: call in a thread. Raises OSError."""
        write_private(self.path, data)
