"""OpenAPI 3.0 or 3.1 → operations with their checks, every mistake noted with its file and line.

The way to an operation is the path of the first of `servers`, then its own. Each segment is text or one whole
`{placeholder}`. What no sidecar can check without a guess (a stream of events, gRPC, a parameter that is an object) is
a mistake here, not a surprise later; a body of a media type that is listed but is no JSON passes unchecked, and
`unchecked` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from certs.errors import MeshError
from sidecar.contract.checks import Check
from sidecar.contract.document import read_document
from sidecar.contract.fields import merged
from sidecar.contract.parameters import Parameter
from sidecar.contract.schemas import Compiler
from sidecar.contract.shape import shape_of
from sidecar.patterns import PathTemplate

if TYPE_CHECKING:
    from sidecar.config.mistakes import Book
    from sidecar.contract.document import Document
    from sidecar.contract.fields import Tree
    from sidecar.hop import Headers

MISTAKE: Final = "MESH164"
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
STREAMS: Final = ("text/event-stream", "application/grpc", "application/x-ndjson", "application/json-seq")
_IGNORED: Final = ("accept", "content-type", "authorization")  # OpenAPI 3.1 section 4.8.12.2.1
MAX_OPERATIONS: Final = 1000
_FIRST_YEAR, _LAST_YEAR = 1970, 9999
UNLISTED: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Bodies:
    """The media types that a body may have. A range of them with a schema means JSON, and nothing else."""

    checks: Mapping[str, Check]  # of JSON, by media type or range
    unchecked: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.checks or self.unchecked)

    def check_of(self, kind: str) -> Any:
        """The check for a media type, None for one that is not checked, or UNLISTED."""
        ranges = (kind, kind.partition("/")[0] + "/*", "*/*")
        if is_json(kind):
            return next((self.checks[each] for each in ranges if each in self.checks), UNLISTED)
        return None if any(each in self.unchecked for each in ranges) else UNLISTED


@dataclass(frozen=True, slots=True)
class Answers:
    """What an operation may answer with one status."""

    bodies: Bodies  # none: nothing


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a contract."""

    id: str
    method: str
    path: PathTemplate
    parameters: tuple[Parameter, ...]
    bodies: Bodies | None  # None: no body
    body_required: bool
    answers: Mapping[str, Answers]  # by "200", "2XX" or "default"
    deprecated: float | None  # seconds since the epoch: since when; 0 where nobody says
    sunset: float | None  # seconds since the epoch
    shape: Tree  # of what it answers below 400
    ending: Headers  # what answers say of its deprecation and its end

    def answer(self, status: int) -> Answers | None:
        """What is said of this status; the exact one before its class before the default."""
        answers = self.answers
        return answers.get(str(status)) or answers.get(f"{status // 100}XX") or answers.get("default")


@dataclass(frozen=True, eq=False)
class Api:
    """All operations of a contract. Equal to another of the same text."""

    digest: str
    operations: Mapping[str, Operation]
    unchecked: tuple[str, ...]  # what is listed but nobody checks, in words
    undated: tuple[str, ...]  # operations that are deprecated nobody knows since when
    _exact: Mapping[tuple[str, ...], Mapping[str, Operation]] = field(default_factory=dict)
    _wild: tuple[tuple[PathTemplate, Mapping[str, Operation]], ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Api) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def find(self, method: str, segments: tuple[str, ...]) -> Operation | None:
        """The operation of a request: a concrete path before one with placeholders (OpenAPI 3.1 section 4.8.8.1). HEAD
        is answered as GET where the contract does not name it (RFC 9110 section 9.3.2).
        """
        found = self._exact.get(segments)
        if found is None:
            found = next((methods for path, methods in self._wild if path.matches(segments)), None)
        if found is None:
            return None
        return found.get(method) or (found.get("GET") if method == "HEAD" else None)


def read_api(text: str, file: str, book: Book, *, strict_fields: bool = False) -> Api | None:
    """The contract in a text; None with the mistakes noted. Raises TooMany alone."""
    document = read_document(text, file, book)
    if document is None:
        return None
    try:
        directed = "readOnly" in text or "writeOnly" in text
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return _Reader(document, book, strict_fields, directed).api(digest)
    except RecursionError:
        book.add(document.place(()), "", "its schemas refer to one another too deeply", "", MISTAKE)
        return None


class _Reader:
    def __init__(self, document: Document, book: Book, strict_fields: bool, directed: bool) -> None:
        self.document, self.root, self.book = document, document.root, book
        version = str(self.root.get("openapi", ""))
        self.old = version.startswith("3.0")
        self.noted: set[tuple[tuple[str, ...], str]] = set()
        if not version.startswith(("3.0", "3.1")):
            self.note(("openapi",), f"openapi is {version or 'missing'}; 3.0 and 3.1 are read")
        self.compiler = Compiler(
            self.root, self.note, old=self.old, strict_objects=strict_fields, without="readOnly" if directed else ""
        )
        self.answers = self.compiler  # the same for both, where nothing has a direction: it is memory
        if directed:
            self.answers = Compiler(
                self.root, self.note, old=self.old, strict_objects=strict_fields, without="writeOnly"
            )
        self.unchecked: list[str] = []

    def note(self, path: tuple[str, ...], message: str) -> None:
        """Write a mistake down, once."""
        if (path, message) not in self.noted:
            self.noted.add((path, message))
            self.book.add(self.document.place(path), ".".join(path), message, "", MISTAKE)

    def api(self, digest: str) -> Api:
        """All operations."""
        base, found = self._base(), dict[str, Operation]()
        paths = self.root.get("paths")
        if not isinstance(paths, Mapping) or not paths:
            self.note(("paths",), "a contract without paths")
            paths = {}
        shapes: dict[tuple[str | None, ...], str] = {}
        tables: dict[PathTemplate, dict[str, Operation]] = {}
        for text, item in paths.items():
            if text.startswith("x-"):
                continue
            path = self._path(base + text, ("paths", text))
            if path is None or not isinstance(item, Mapping):
                continue
            other = shapes.setdefault(path.segments, text)
            if other != text:
                self.note(("paths", text), f"the same path as {other}")
                continue
            tables[path] = self._item(path, item, ("paths", text), found)
        ordered = sorted(tables, key=lambda path: tuple(part is None for part in path.segments))
        undated = tuple(each.id for each in found.values() if each.deprecated == 0)
        return Api(
            digest, found, tuple(self.unchecked), undated,
            {tuple(str(s) for s in path.segments): tables[path] for path in ordered if path.literal is not None},
            tuple((path, tables[path]) for path in ordered if path.literal is None),
        )  # fmt: skip

    def _base(self) -> str:
        servers = self.root.get("servers")
        if not isinstance(servers, list) or not servers or not isinstance(servers[0], Mapping):
            return ""
        url = str(servers[0].get("url", ""))
        path = urlsplit(url).path.rstrip("/")
        if "{" in url:
            self.note(("servers", "0", "url"), "a server with variables; write the path that callers use")
        return path

    def _path(self, text: str, where: tuple[str, ...]) -> PathTemplate | None:
        try:
            path = PathTemplate.parse(text)
        except MeshError as error:
            self.note(where, f"{error}; a placeholder is one whole segment")
            return None
        if path.rest:
            self.note(where, "a path of a contract has no **")
            return None
        return path

    def _item(
        self, path: PathTemplate, item: Mapping[str, Any], where: tuple[str, ...], found: dict[str, Operation]
    ) -> dict[str, Operation]:  # fmt: skip
        item, where = self._resolved(item, where)
        shared = item.get("parameters", [])
        table: dict[str, Operation] = {}
        for method in METHODS:
            said = item.get(method)
            if not isinstance(said, Mapping):
                continue
            name = str(said.get("operationId", "")) or f"{method}{path.text}"
            if name in found:
                self.note((*where, method, "operationId"), f"the operationId {name!r} stands twice")
            if len(found) >= MAX_OPERATIONS:
                self.note((*where, method), f"more than {MAX_OPERATIONS} operations")
                return table
            found[name] = table[method.upper()] = self._operation(
                name, method.upper(), path, said, (*where, method), shared, where
            )
        return table

    def _operation(
        self, name: str, method: str, path: PathTemplate, said: Mapping[str, Any], where: tuple[str, ...],
        shared: Any, above: tuple[str, ...],
    ) -> Operation:  # fmt: skip
        parameters = {(each.place, each.name): each for each in self._parameters(shared, (*above, "parameters"))}
        own = self._parameters(said.get("parameters", []), (*where, "parameters"))
        parameters |= {(each.place, each.name): each for each in own}
        bodies, required = None, False
        if "requestBody" in said:
            body, place = self._resolved(said["requestBody"], (*where, "requestBody"))
            bodies = self._bodies(body, place, f"the request of {name}", self.compiler)
            required = body.get("required") is True
        answers, shapes = {}, []
        responses = said.get("responses", {})
        if not isinstance(responses, Mapping) or not responses:
            self.note((*where, "responses"), f"{name} has no responses, so no answer of it could pass")
            responses = {}
        for status, each in responses.items():
            answer, place = self._resolved(each, (*where, "responses", str(status)))
            answers[str(status).upper().replace("DEFAULT", "default")] = Answers(
                self._bodies(answer, place, f"the answer {status} of {name}", self.answers)
            )
            if str(status)[:1] not in "45":
                shapes += self._shapes(answer)
        deprecated = self._day(said, "x-deprecated-since", where)
        if deprecated is None and said.get("deprecated") is True:
            deprecated = 0.0
        sunset = self._day(said, "x-sunset", where)
        return Operation(
            name, method, path, tuple(parameters.values()), bodies, required, answers, deprecated, sunset,
            merged(shapes), _ending(deprecated, sunset),
        )  # fmt: skip

    def _day(self, said: Mapping[str, Any], key: str, where: tuple[str, ...]) -> float | None:
        if key not in said:
            return None
        try:
            moment = datetime.fromisoformat(str(said[key]))
        except ValueError:
            self.note((*where, key), f"{key} is a date, like 2026-12-31")
            return None
        if not _FIRST_YEAR < moment.year < _LAST_YEAR:
            self.note((*where, key), f"{key} is a date of these days, like 2026-12-31")
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def _resolved(self, said: Any, where: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        for _ in range(8):
            if not isinstance(said, Mapping):
                self.note(where, "a mapping is expected here")
                return {}, where
            if "$ref" not in said:
                return said, where
            found = self.compiler.resolve(said["$ref"], where)
            if found is None:
                return {}, where
            said, where = found
        self.note(where, "a $ref that leads to a $ref, and so on")
        return {}, where

    def _bodies(self, said: Mapping[str, Any], where: tuple[str, ...], what: str, compiler: Compiler) -> Bodies:
        content = said.get("content", {})
        if not isinstance(content, Mapping):
            self.note((*where, "content"), "content is a mapping from media types")
            return Bodies({})
        checks: dict[str, Check] = {}
        unchecked: set[str] = set()
        for text, media in content.items():
            kind, place = str(text).partition(";")[0].strip().lower(), (*where, "content", text)
            if is_stream(kind):
                self.note(place, f"{kind} is a stream, which cannot be checked before it is sent on")
                continue
            schema = media.get("schema", {}) if isinstance(media, Mapping) else {}
            wide = kind in ("*/*", "application/*")
            if wide or is_json(kind):
                checks[kind] = compiler.compile(schema, (*place, "schema"))
            if not is_json(kind) and (not wide or self._is_text(schema)):
                unchecked.add(kind)
                self.unchecked.append(f"{kind} in {what}")
        return Bodies(checks, frozenset(unchecked))

    def _is_text(self, schema: Any) -> bool:
        """Whether a schema may be of what is no JSON."""
        return not isinstance(schema, Mapping) or not schema or self._kinds(schema) == {"string"}

    def _shapes(self, said: Mapping[str, Any]) -> list[Tree]:
        content = said.get("content", {})
        medias = content.values() if isinstance(content, Mapping) else ()
        return [shape_of(each.get("schema", True), self.compiler.look) for each in medias if isinstance(each, Mapping)]

    # ---- parameters ------------------------------------------------------------------------------------------------

    def _parameters(self, said: Any, where: tuple[str, ...]) -> list[Parameter]:
        if not isinstance(said, list):
            self.note(where, "parameters is a list")
            return []
        found = []
        for index, each in enumerate(said):
            parameter = self._parameter(*self._resolved(each, (*where, str(index))))
            if parameter is not None:
                found.append(parameter)
        return found

    def _parameter(self, said: Mapping[str, Any], where: tuple[str, ...]) -> Parameter | None:
        name, place = str(said.get("name", "")), said.get("in")
        if place == "cookie":
            self.unchecked.append(f"the cookie {name}")
        if place == "cookie" or (place == "header" and name.lower() in _IGNORED):
            return None
        if place not in ("path", "query", "header") or not name:
            self.note(where, "a parameter has a name, and in: path, query, header or cookie")
            return None
        style = said.get("style", "form" if place == "query" else "simple")
        if style != ("form" if place == "query" else "simple") or "content" in said:
            self.note(where, f"the parameter {name} has a style that cannot be checked; there are simple and form")
            return None
        schema, at = self._schema(said.get("schema", {}), (*where, "schema"))
        kinds = self._kinds(schema) - {"null"}
        listed = "array" in kinds
        if listed and kinds == {"array"}:
            kinds = self._kinds(schema.get("items", {})) - {"null"}
        if kinds & {"object", "array"}:
            self.note(where, f"the parameter {name} is no single value or list of them, so it cannot be checked")
            return None
        check = self.compiler.compile(schema, at)
        explode = said.get("explode", place == "query") is True
        name = name.lower() if place == "header" else name
        return Parameter(name, place, said.get("required") is True, frozenset(kinds), listed, explode, check)

    def _kinds(self, schema: Any, depth: int = 8) -> set[str]:
        """The JSON types that a schema names, here or in its parts; none where it does not say."""
        if not isinstance(schema, Mapping) or not depth:
            return set()
        said = schema.get("type")
        kinds = {str(each) for each in (said if isinstance(said, list) else [said] if said is not None else [])}
        if "$ref" in schema:
            kinds |= self._kinds(self.compiler.look(str(schema["$ref"])), depth - 1)
        for key in ("allOf", "anyOf", "oneOf"):
            parts = schema.get(key)
            for each in parts if isinstance(parts, list) else ():
                kinds |= self._kinds(each, depth - 1)
        listed = schema.get("enum")
        values = [*(listed if isinstance(listed, list) else ()), *([schema["const"]] if "const" in schema else ())]
        return kinds or {_NAMES[type(each)] for each in values}

    def _schema(self, said: Any, where: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        return self._resolved(said, where) if isinstance(said, Mapping) else ({}, where)


_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array",
                 dict: "object"}  # fmt: skip


def _ending(deprecated: float | None, sunset: float | None) -> Headers:
    """Deprecation is a date of RFC 9651, Sunset one of HTTP (RFC 9110 section 5.6.7)."""
    found: Headers = []
    if deprecated:
        found.append((b"deprecation", b"@%d" % deprecated))
    if sunset is not None:
        day = datetime.fromtimestamp(sunset, UTC)
        found.append((b"sunset", f"{day:%a, %d %b %Y %H:%M:%S} GMT".encode()))
    return found


def is_stream(kind: str) -> bool:
    """Whether a media type is one of messages that come one by one, for as long as somebody has any."""
    return kind in STREAMS or kind.startswith("application/grpc")


def is_json(kind: str) -> bool:
    """Whether a media type is JSON (RFC 6839 section 3.1)."""
    return kind == "application/json" or (kind.endswith("+json") and "/" in kind)
