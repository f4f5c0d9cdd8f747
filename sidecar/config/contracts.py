"""Contracts that listeners name, read with the config in the same generation; and the rules that follow from grants."""
# ruff: noqa: PTH118, PTH120 - paths stay text, as the operator wrote them

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sidecar.config.document import decode
from sidecar.config.mistakes import Book, meant, nearest
from sidecar.config.schema_inbound import Rule

if TYPE_CHECKING:
    from sidecar.config.assemble import View
    from sidecar.config.reader import Draft
    from sidecar.contract.reading import Operation

UNREADABLE: Final = "MESH164"
UNKNOWN: Final = "MESH165"
NEVER: Final = "MESH194"


def attach(services: Iterable[Draft], read: Callable[[str], bytes], book: Book) -> None:
    """Read the document of every contract. `read` gives the bytes of a file (OSError), and counts them in the digest.
    Raises TooMany.
    """
    for service in services:
        for listener in service.values.get("inbound", ()):
            contract = listener.values.get("contract")
            if contract is not None and not contract.incomplete:
                _attach(contract, read, book)


def _attach(contract: Draft, read: Callable[[str], bytes], book: Book) -> None:
    from sidecar.contract.reading import read_api  # most have none, and it is memory

    file = os.path.normpath(os.path.join(os.path.dirname(contract.where.file), contract.values["openapi"]))
    try:
        data = read(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        book.at(f"{contract.path}.openapi", f"cannot read {file}: {reason}", "", UNREADABLE)
        return
    text = decode(data, file, book)
    if text is not None:
        book.sources[file] = text
        strict = contract.get("unknown_fields") == "refuse"
        contract.values["api"] = read_api(text, file, book, strict_fields=strict)


def granted(view: View, book: Book) -> list[tuple[Rule, str]]:
    """The rules that follow from a service's grants, each with its path; concrete paths before those with placeholders.
    Raises TooMany.
    """
    known: dict[str, Operation] = {}
    for listener in view.inbound:
        contract = listener.value.contract
        if contract is not None and contract.api is not None:
            known.update(contract.api.operations)
    rules = []
    for caller, draft in view.draft.values.get("grants", {}).items():
        if draft.incomplete:
            view.incomplete = True
            continue
        path = f"{view.path}.grants.{caller.text}"
        _check_fields(draft, path, book)
        for name in draft.values["operations"]:
            found = known.get(name)
            if found is None:
                _unknown(view, name, [*known], path, book)
                continue
            methods = (found.method, "HEAD") if found.method == "GET" else (found.method,)
            rule = Rule(
                name=f"grant:{caller.text}:{name}", effect="allow", callers=(caller,), methods=methods,
                paths=(found.path,), operations=(name,), where=draft.where,
            )  # fmt: skip
            rules.append((rule, path))
    return sorted(rules, key=lambda each: None in each[0].paths[0].segments)


def _check_fields(draft: Draft, path: str, book: Book) -> None:
    from sidecar.contract.fields import BadField, read_fields

    try:
        read_fields(draft.values.get("fields", ()))
    except BadField as error:
        book.at(f"{path}.fields", str(error), "", UNKNOWN)


def _unknown(view: View, name: str, known: list[str], path: str, book: Book) -> None:
    contracts = [each.value.contract for each in view.inbound if each.value.contract is not None]
    if contracts and any(each.api is None for each in contracts):
        return  # said already
    hint = meant(name, known, what="the contract has") if known else "grants need inbound[].contract"
    book.at(f"{path}.operations", f'no operation "{name}" in a contract of {view.name}', hint, UNKNOWN)


def contracted(view: View, book: Book) -> None:
    """What cannot be with a contract. Raises TooMany."""
    for listener in view.inbound:
        contract, path = listener.value.contract, f"{listener.path}.contract"
        if contract is None:
            continue
        if listener.value.protocol != "http":
            message = f"listener {listener.value.name} is {listener.value.protocol}; a contract is about HTTP"
            book.at(path, message, "declare it protocol: http", "MESH166")


def odd(view: View, book: Book) -> None:
    """What is allowed with a contract, but odd."""
    for listener in view.inbound:
        contract, path = listener.value.contract, f"{listener.path}.contract"
        if contract is None or contract.api is None:
            continue
        for what in contract.api.unchecked[:20]:
            book.warn("MESH167", path, f"{what} is listed, and passes unchecked")
        for name in contract.api.undated[:20]:
            hint = "add x-deprecated-since: DATE to the operation"
            book.warn("MESH168", path, f"{name} is deprecated, and no Deprecation header can say since when", hint)
        if view.built.grants and contract.mode != "enforce":
            hint = "set mode: enforce"
            book.warn("MESH169", f"{path}.mode", f"grants of fields do nothing: the mode is {contract.mode}", hint)
        if view.built.grants and contract.undocumented == "pass":
            message = "answers to what the contract does not have are cut to no grant: whoever a rule lets ask sees all"
            book.warn("MESH156", f"{path}.undocumented", message, "set undocumented: refuse")
    _fields_odd(view, book)


def _fields_odd(view: View, book: Book) -> None:
    """Granted fields that no answer has, and operations of whose answers nothing is left."""
    apis = [each.value.contract.api for each in view.inbound if each.value.contract is not None]
    known = {name: found for api in apis if api is not None for name, found in api.operations.items()}
    if not view.built.grants or not known:
        return
    from sidecar.contract.fields import parts_of
    from sidecar.contract.shape import missing

    for caller, grant in view.built.grants.items():
        path = f"{view.path}.grants.{caller.text}.fields"
        shapes = {name: known[name].shape for name in grant.operations if name in known}
        shows, told = dict.fromkeys(shapes, 0), 0
        for index, field in enumerate(grant.fields):
            parts = parts_of(field)
            wrong = {name: missing(parts, shape) for name, shape in shapes.items()}
            for name, each in wrong.items():
                shows[name] += each is None
            if shapes and None not in wrong.values():
                told += 1
                here = f"{path}[{index}]" if f"{path}[{index}]" in book.places else path
                book.warn(NEVER, here, *_never(field, [each for each in wrong.values() if each is not None]))
        for name, count in shows.items():
            if not count and told < len(grant.fields) and shapes[name] not in ({}, False):
                hint = "the answer is a list: begin with []" if "[]" in shapes[name] else ""
                book.warn(NEVER, path, f"{name} answers with none of these fields, so {caller.text} sees nothing", hint)


def _never(field: str, wrong: list[tuple[str, list[str]]]) -> tuple[str, str]:
    """The sentence and the hint for a field that cannot come: where it goes farthest, and what stands there."""
    part, names = max(wrong, key=lambda each: (not each[0], bool(each[1])))
    if not part:
        return f"{field} is an object or a list, which no path that ends there lets pass", f"write {field}.**"
    near = nearest(part, names)
    hint = f'did you mean "{near}"?' if near else f"there are: {', '.join(names[:20])}" if names else ""
    return f"no answer of these operations has {field}", hint

