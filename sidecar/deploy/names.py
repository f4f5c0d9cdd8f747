"""What image, manifests, redirect rules and the sidecar itself agree upon. Changing one of these is a release note."""

from __future__ import annotations

from sidecar import __version__

PREFIX = "sidecar.mesh"  # of annotations and labels: `sidecar.mesh/inject` (decision D6)
IMAGE = f"mesh:{__version__}"
CONTAINER = "mesh-sidecar"
INIT_CONTAINER = "mesh-redirect"

PROXY_UID = 17000  # the sidecar's user: what it sends is not redirected, so nobody else may run as it
PROXY_GID = 17000

CONFIG_PATH = "/etc/mesh/mesh.yaml"
ENROLMENT_PATH = "/etc/mesh-enrolment/enrolment.json"  # beside, not below: a mount inside a read-only one fails
TOKEN_PATH = "/var/run/secrets/mesh/token"  # noqa: S105 - a path
TOKEN_AUDIENCE = "mesh-ca"  # noqa: S105 - whom the projected service-account token is for
STATE_PATH = "/var/lib/mesh"  # memory-backed: nothing here outlives its pod
RUN_PATH = "/run/mesh"  # admin socket
