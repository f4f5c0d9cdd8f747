"""What a route says without saying it: its name, and the paths that a rewrite is about."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.config.reader import Draft
from sidecar.patterns import PathTemplate


def fill_routes(drafts: Sequence[Draft]) -> None:
    """Complete the routes of one upstream, in place."""
    names = {draft.values["name"] for draft in drafts if "name" in draft.values}
    for number, draft in enumerate(drafts, 1):
        if draft.incomplete:
            continue
        values = draft.values
        rewrite = values.get("rewrite")
        if rewrite is not None and "paths" not in values and not rewrite.incomplete:
            values["paths"] = _under(rewrite.values["prefix"])
        if "name" not in values:
            name = values["paths"][0].text if values.get("paths") else ""
            values["name"] = name if name and name not in names else f"route-{number}"
            names.add(values["name"])


def _under(prefix: str) -> tuple[PathTemplate, ...]:
    """A prefix itself, and all that is below it."""
    bare = prefix.rstrip("/")
    below = PathTemplate.parse(f"{bare}/**")
    return (PathTemplate.parse(bare), below) if bare else (below,)
