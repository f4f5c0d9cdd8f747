"""`python -P -m sidecar.cli`: the same as `mesh`. -P keeps a `ca` folder of the caller's out of our imports."""

from __future__ import annotations

import sys

from sidecar.cli import main

sys.exit(main())
