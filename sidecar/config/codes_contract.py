"""What stands behind the codes about contracts and grants (`sidecar.config.contracts`). See `codes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_HEAD: Final = b"openapi: 3.1.0\ninfo: {title: orders, version: '1'}\npaths:\n  /orders/{id}:\n    get:\n"
_ANSWER: Final = b"      responses: {'200': {description: one, content: {%b: {schema: {type: %b}}}}}\n"
_SOUND: Final = _HEAD + b"      operationId: getOrder\n" + _ANSWER % (b"application/json", b"object")
DOCUMENTS: Final[Mapping[str, bytes]] = {  # the files beside the examples
    "orders.yaml": _SOUND,
    "broken.yaml": _HEAD + b"      operationId: getOrder\n" + _ANSWER % (b"application/json", b"objekt"),
    "pictures.yaml": _HEAD + b"      operationId: getOrder\n" + _ANSWER % (b"image/png", b"string"),
    "old.yaml": _SOUND + b"      deprecated: true\n",
    "whole.yaml": _HEAD + b"      operationId: getOrder\n" + _ANSWER % (
        b"application/json",
        b"object, properties: {items: {type: array, items: {type: object, properties: {id: {type: string}}}}}",
    ),
    "dated.yaml": _SOUND + b"      deprecated: true\n      x-deprecated-since: 2025-06-01\n",
}

_WEB: Final = "services:\n  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n"


def _orders(document: str, mode: str = "enforce", more: str = "allow: [{from: web}]", kind: str = "") -> str:
    return (
        f"{_WEB}  orders:\n    inbound: [{{app: '127.0.0.1:8080'{kind}, contract: {{openapi: {document}, "
        f"mode: {mode}}}}}]\n    {more}\n"
    )


_GRANT: Final = "grants: {web: {operations: [%s], fields: [id]}}"

CONTRACT: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH164", "a contract that cannot be held",
        "The document is missing, is no OpenAPI 3.0 or 3.1, or says what no sidecar can check: a pattern that may take "
        "for ever, a `$ref` out of the document or without an end, a stream.",
        "Correct the document at the line that is named.",
        _orders("broken.yaml"), _orders("orders.yaml"),
    ),
    (
        "MESH165", "a grant of what the contract does not have",
        "An operation that no contract of the service has can never be called, and a path of fields that cannot be "
        "read grants nothing.",
        "Correct the name: it is the `operationId`; a path of fields is like `customer.name` or `items[].id`.",
        _orders("orders.yaml", more=_GRANT % "getOrdre"), _orders("orders.yaml", more=_GRANT % "getOrder"),
    ),
    (
        "MESH166", "a contract for what is no HTTP of requests and answers",
        "A contract speaks of whole requests and whole answers, and raw TCP has none.",
        "Give what is HTTP a listener of its own, with `protocol: http`.",
        _orders("orders.yaml", kind=", protocol: auto"), _orders("orders.yaml"),
    ),
    (
        "MESH167", "a media type that nobody can check",
        "The contract lists it, so it passes; what is in it is not looked at, and cannot be cut to a grant.",
        "Take it as it is, or let the operation speak JSON.",
        _orders("pictures.yaml"), _orders("orders.yaml"),
    ),
    (
        "MESH168", "a deprecation without a date",
        "The `Deprecation` header says since when (RFC 9745), and here nobody knows.",
        "Add `x-deprecated-since: 2026-01-31` to the operation.",
        _orders("old.yaml"), _orders("dated.yaml"),
    ),
    (
        "MESH169", "granted fields that nobody cuts to",
        "Answers are cut to the granted fields only in `mode: enforce`; in any other, callers see all of them.",
        "Set `mode: enforce` once `mesh contract status` shows nothing outside of the contract.",
        _orders("orders.yaml", "shadow", _GRANT % "getOrder"), _orders("orders.yaml", more=_GRANT % "getOrder"),
    ),
    (
        "MESH156", "grants beside undocumented operations that pass",
        "`undocumented: pass` lets requests through that the contract does not have. Their answers are neither checked "
        "nor cut, so whoever an `allow` rule lets ask for one sees fields that no grant names.",
        "Set `undocumented: refuse` once `mesh contract status` shows no undocumented route, or write the route down.",
        _orders("orders.yaml", "enforce, undocumented: pass", _GRANT % "getOrder"),
        _orders("orders.yaml", more=_GRANT % "getOrder"),
    ),
    (
        "MESH194", "a granted field that never comes",
        "No answer of the granted operations has it, by the contract: a slip of the pen, most of the time. Or one of "
        "the operations has none of the fields, so its callers see nothing.",
        "Correct the name; begin with `[]` where the answer is a list; write `customer.**` for a whole object.",
        _orders("whole.yaml", more=_GRANT.replace("[id]", "[item]") % "getOrder"),
        _orders("whole.yaml", more=_GRANT.replace("[id]", "['items[].id']") % "getOrder"),
    ),
)  # fmt: skip
