"""The fragments of config in docs/migrate.md stand, in the order of the page, in configs that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.config.load import load_text

PAGE = (Path(__file__).parents[3] / "docs" / "migrate.md").read_text()
FRAGMENTS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OTHERS = """\
  orders:
    address: 10.77.0.2
    redirect: {}
    inbound: [{app: "127.0.0.1:8080"}]
    allow: [{from: web}]
"""


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_fragment_is_config(fragment: str) -> None:
    if not fragment.startswith("  web:"):
        fragment = f"  web:\n    redirect: {{}}\n    outbound:\n{fragment}"
    config = load_text(f"trust_domain: demo.mesh\nservices:\n{fragment}{OTHERS}")
    assert config.services["web"].outbound
