"""What an operator can say of a service's contract, and of what callers are granted of it."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sidecar.config.terms import FilePath, Operation, Where, described
from sidecar.patterns import IdentityPattern


@dataclass(frozen=True, slots=True)
class Contract:
    """What requests and answers of a listener must keep to, as OpenAPI 3.0 or 3.1 says it; see docs/contracts.md."""

    openapi: FilePath = described("The document, YAML or JSON, relative to this file.")
    mode: Literal["off", "shadow", "enforce"] = described(
        "`off`: it is only read; `shadow`: whatever is outside of it is counted and passes; `enforce`: it is refused.",
        "shadow",
    )
    undocumented: Literal["refuse", "pass"] = described(
        "Requests to what the contract does not have: 404, or passed unchecked.", "refuse"
    )
    unknown_query: Literal["refuse", "pass"] = described(
        "Query parameters that the operation does not have.", "refuse"
    )
    unknown_fields: Literal["contract", "refuse"] = described(
        "Fields of JSON objects that the contract does not name: as it says by `additionalProperties`, or refused "
        "where it says nothing, too.",
        "contract",
    )
    after_sunset: tuple[IdentityPattern, ...] = described(
        "Callers that may use an operation past its `x-sunset`; all others get 410.", ()
    )
    api: Any = described("What the document says (sidecar.contract.reading.Api).", None, hidden=True)
    where: Where = described("Where the contract stands.", Where("", 0), hidden=True)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one kind of caller may do, and see of the answers. Rules that allow it follow from this."""

    operations: tuple[Operation, ...] = described("Operations of the contract, by `operationId`.", some=True)
    fields: tuple[str, ...] = described(
        "Fields of JSON answers: `customer.name`, `items[].id`, `tags[]`; `customer.**` is all below it, `'**'` "
        "everything. Absent: none.",
        (),
    )
    where: Where = described("Where the grant stands.", Where("", 0), hidden=True)
