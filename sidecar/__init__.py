"""The sidecar: what stands in front of one service, and the command that people use.

Start at `sidecar.hop`. Imports lead down: cli → runtime, admin → proxy → net, identity, telemetry → policy → the
vocabulary (hop, errors, http, config) → `certs`. ARCHITECTURE.md draws the floors.
"""

__version__ = "0.1.0"  # pyproject.toml says the same; a test holds them together
