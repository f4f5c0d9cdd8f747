"""What checks of contracts cost in isolation: `python -m tests.bench.contracts`.

Microseconds of processor time, best of five. The bars: a body of 2 KiB read and validated in 80, an answer of 10 KiB
read, filtered and written in 250. And milliseconds for the worst bodies of 1 MiB; none may take over 50.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import process_time
from typing import Any

from sidecar.contract.checks import Exhausted, Work
from sidecar.contract.fields import cutter, read_fields
from sidecar.contract.json_body import NotJson, parse, write
from sidecar.contract.schemas import Compiler

LINE = {
    "type": "object", "required": ["id", "sku"], "additionalProperties": False,
    "properties": {
        "id": {"type": "integer", "format": "int64", "minimum": 1}, "sku": {"type": "string", "maxLength": 32},
        "quantity": {"type": "integer"}, "note": {"type": "string"}, "price": {"type": "number"},
    },
}  # fmt: skip
ORDER = {"type": "object", "required": ["lines"], "properties": {"lines": {"type": "array", "items": LINE}}}
FIELDS = ("lines[].id", "lines[].sku", "lines[].price")


def order(lines: int) -> bytes:
    """An order of so many lines."""
    line = {"sku": "abc-12345", "quantity": 3, "note": "please wrap this one as a gift, with a card", "price": 3.5}
    return json.dumps({"lines": [{"id": number + 1, **line} for number in range(lines)]}).encode()


def cost(step: Callable[[], object], times: int = 2000) -> float:
    """Seconds of processor time for one call."""
    best = float("inf")
    for _ in range(5):
        began = process_time()
        for _ in range(times):
            step()
        best = min(best, process_time() - began)
    return best / times


def check_of(schema: Any) -> Callable[[Any, Work], str | None]:
    """The check of a schema without mistakes."""
    return Compiler({"s": schema}, print, old=False).compile(schema, ("s",))


WORST = {
    "wide": b"[" + b"1," * 524_286 + b"1]", "deep": b"[" * (1 << 20), "closing": b"[" * 60 + b"]" * 1_048_000,
    "quotes": b'"' + b'\\"' * 524_000, "commas in text": b'["' + b"," * 1_048_000 + b'"]',
    "long text": b'"' + b"a" * 1_048_000 + b'"', "escapes": b'"' + b"\\u00e9" * 174_000 + b'"',
    "digits": b"[" + b",".join([b"9" * 4000] * 250) + b"]",
    "most objects": b"[" + b",".join([b'{"a":1}'] * 6000) + b"]",
    "most keys": b"{" + b",".join(b'"%042d":[1]' % n for n in range(9900)) + b"}",
}


def worst(body: bytes, check: Callable[[Any, Work], str | None]) -> None:
    """Read and check, whatever comes of it."""
    try:
        check(parse(body), Work())
    except (NotJson, Exhausted):
        return


def main() -> None:
    """Print the rows."""
    check, body, answer = check_of(ORDER), order(19), order(95)
    value, whole, cut = parse(body), parse(answer), cutter(read_fields(FIELDS))
    print(f"body of {len(body)} bytes, read          {cost(lambda: parse(body)) * 1e6:8.1f} µs")
    print(f"body of {len(body)} bytes, validated     {cost(lambda: check(value, Work())) * 1e6:8.1f} µs")
    print(f"answer of {len(answer)} bytes, cut       {cost(lambda: write(cut(parse(answer))), 500) * 1e6:8.1f} µs")
    print(f"answer of {len(answer)} bytes, validated {cost(lambda: check(whole, Work()), 500) * 1e6:8.1f} µs")
    heavy = check_of({"anyOf": [{"items": {"anyOf": [{"type": "string"}, {"pattern": "^(a|b)*c$"}]}}] * 8 + [{}]})
    for name, each in WORST.items():
        print(f"worst, {name:<16} {cost(lambda each=each: worst(each, heavy), 1) * 1e3:8.1f} ms")  # type: ignore[misc]


if __name__ == "__main__":
    main()
