"""HPACK stories of three encoders that others wrote (http2jp/hpack-test-case), read in order by one decoder each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sidecar.http.h2.blocks import HeaderBlocks
from sidecar.http.h2.limits import H2Limits
from tests.kit.vectors import folder

ENCODERS = ("go-hpack", "nghttp2", "nghttp2-change-table-size")
DEEP = ("story_20", "story_21", "story_22")  # hundreds of blocks each


def stories(encoder: str) -> list[Path]:
    return sorted(folder("hpack", encoder).glob("*.json"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stories_are_read_as_they_were_meant(encoder: str) -> None:
    found = stories(encoder)
    assert found
    for story in found:
        blocks = HeaderBlocks(H2Limits())
        cases = json.loads(story.read_bytes())["cases"]
        if story.stem in DEEP and not os.environ.get("MESH_DEEP"):
            cases = cases[:60]
        for case in cases:
            wanted = [(name.encode(), value.encode()) for field in case["headers"] for name, value in field.items()]
            assert blocks.read(bytes.fromhex(case["wire"])) == wanted, (story.name, case["seqno"])
