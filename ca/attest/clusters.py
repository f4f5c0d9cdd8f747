"""What an operator says of a Kubernetes cluster whose service-account tokens are proofs: a value, kept in the store.

Two ways to verify, of which each cluster has one:

* `review`: ask the cluster's API server (TokenReview). It knows of pods that are gone. The CA needs a service account
  of its own there, with the role `system:auth-delegator`; its token is read from a file at every use.
* `oidc`: verify by the cluster's published keys. Nothing is asked at enrolment, so a token stays good until its end
  even where its pod was deleted.

The audience is our own, so that a token made for us is good for nobody else, and one made for others not for us.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from ca.errors import DamagedCa, InvalidEntry
from ca.https import HttpsUrl
from ca.store.base import Cluster as Row

DEFAULT_AUDIENCE = "mesh-ca"
MODES = ("review", "oidc")

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class KubernetesCluster:
    """One cluster. `url` is the API server's for `review`, the issuer's for `oidc`; `ca_pem` empty: system trust."""

    name: str
    mode: str
    url: str
    audience: str = DEFAULT_AUDIENCE
    token_file: str = ""
    ca_pem: str = field(default="", repr=False)

    def check(self) -> KubernetesCluster:
        """The cluster as it is. Raises InvalidEntry, naming what is wrong."""
        if not _NAME.match(self.name):
            raise InvalidEntry(f"cluster {self.name[:80]!r}: lower-case letters, digits, dots and hyphens, at most 63")
        if self.mode not in MODES:
            raise InvalidEntry(f"cluster {self.name}: the mode is one of {', '.join(MODES)}")
        if not self.audience or not self.audience.isprintable() or len(self.audience) > 256:
            raise InvalidEntry(f"cluster {self.name}: an audience of our own is needed")
        try:
            HttpsUrl.parse(self.url)
        except ValueError as error:
            raise InvalidEntry(f"cluster {self.name}: {error}") from None
        if (self.mode == "review") != bool(self.token_file):
            raise InvalidEntry(f"cluster {self.name}: `review`, and nothing else, needs a token file of the CA's own")
        if self.token_file and not Path(self.token_file).is_absolute():
            raise InvalidEntry(f"cluster {self.name}: the token file is an absolute path")
        try:
            if self.ca_pem:
                x509.load_pem_x509_certificates(self.ca_pem.encode())
        except ValueError:
            raise InvalidEntry(f"cluster {self.name}: the file of its CA holds no PEM certificates") from None
        return self

    def to_row(self, now: float) -> Row:
        """As the store keeps it."""
        return Row(self.name, json.dumps(asdict(self)), now)

    @classmethod
    def of_row(cls, row: Row) -> KubernetesCluster:
        """As the store has it. Raises DamagedCa."""
        try:
            document: dict[str, Any] = json.loads(row.document)
            return cls(**document).check()
        except (ValueError, TypeError, InvalidEntry) as error:
            raise DamagedCa(f"cluster {row.name!r} of the store cannot be read: {error}") from None


def token_files(rows: Iterable[Row]) -> tuple[Path, ...]:
    """The files that must be readable once the CA serves."""
    found = (KubernetesCluster.of_row(row).token_file for row in rows)
    return tuple(Path(path) for path in found if path)
