"""YAML text → nodes that know their line and column.

We read events, not values, so that we see what was written rather than what a YAML reader made of it. A config is text
that several programs read (Helm, editors, other YAML libraries), so whatever two of them may read differently is a
mistake here (decision D1): duplicate keys, tabs, anchors, aliases, merge keys, tags, several documents, keys that are
not text. Which plain words and numbers are traps (`no`, `1:30`, `010`) depends on the field; see `kinds`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

import yaml

from sidecar.config.mistakes import Book
from sidecar.config.terms import Where

MAX_BYTES = 1 << 20
MAX_DEPTH = 32  # the schema itself is six levels deep

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1 section 4.2
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as written. `plain` is one without quotes, which YAML readers may take for something else."""

    where: Where
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    where: Where
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping in the order of the file, without duplicates."""

    where: Where
    entries: tuple[tuple[Scalar, Node], ...]

    def get(self, key: str) -> Node | None:
        """The value of a key, or None."""
        return next((node for name, node in self.entries if name.text == key), None)


Node = Scalar | Items | Entries


def lines_of(text: str) -> list[str]:
    """The lines of a file, as YAML counts them."""
    return _BREAK.split(text)


def decode(data: bytes, file: str, book: Book) -> str | None:
    """The file's text, or None with the mistake noted."""
    if len(data) > MAX_BYTES:
        book.add(Where(file, 0), "", f"the file has {len(data)} bytes; at most {MAX_BYTES} are read")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - before.rfind(b"\n")
        book.add(
            Where(file, line, column), "", f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        )
        return None


def parse(text: str, file: str, book: Book) -> Entries | None:
    """The file's mapping, or None where it has none that can be read. Never raises but TooMany."""
    begins = 'it begins with "trust_domain: …"'
    node = read_node(text, file, book, begins)
    if node is not None and not isinstance(node, Entries):
        book.add(node.where, "", "a config is a mapping of keys to values", begins)
        return None
    return node


def read_node(text: str, file: str, book: Book, begins: str, deepest: int = MAX_DEPTH) -> Node | None:
    """What the file holds, or None where that cannot be read; `begins` is the hint for one that is empty, `deepest` how
    many levels it may have. Never raises but TooMany.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        where = _Positions(text, file).at(unprintable.start())
        book.add(where, "", f"character U+{ord(unprintable[0]):04X} may not stand in YAML")
        return None
    _refuse_tabs(text, file, book)
    return _Composer(text, file, book, begins, deepest).document()


class _Positions:
    """Offsets in a text → line and column, both from 1."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.starts = [0, *(match.end() for match in _BREAK.finditer(text))]

    def at(self, offset: int) -> Where:
        line = bisect_right(self.starts, offset)
        return Where(self.file, line, offset - self.starts[line - 1] + 1)


def _refuse_tabs(text: str, file: str, book: Book) -> None:
    """A tab is fine inside quotes, block text and comments; elsewhere readers disagree on its width and its meaning."""
    if "\t" not in text:
        return
    spans: list[tuple[int, int]] = []
    loader = yaml.SafeLoader(text)
    end_of_scan = len(text)
    try:
        while loader.check_token():
            token = loader.get_token()  # type: ignore[no-untyped-call]
            if isinstance(token, yaml.ScalarToken) and not token.plain:
                spans.append((token.start_mark.index, token.end_mark.index))
    except (yaml.YAMLError, ValueError, OverflowError):
        end_of_scan = loader.get_mark().index + 1
    finally:
        loader.dispose()
    positions = _Positions(text, file)
    seen: set[int] = set()
    for match in re.finditer("\t", text):
        where = positions.at(match.start())
        inside = any(start <= match.start() < end for start, end in spans)
        comment = re.search(r"(^|\s)#", text[positions.starts[where.line - 1] : match.start()])
        if match.start() <= end_of_scan and not inside and not comment and where.line not in seen:
            seen.add(where.line)
            book.add(where, "", "a tab; YAML readers disagree on what it means", "use spaces")


class _Composer:
    """Builds nodes from events, noting on the way what may not be there."""

    def __init__(self, text: str, file: str, book: Book, begins: str, deepest: int) -> None:
        self.begins = begins
        self.deepest = deepest
        self.loader = yaml.SafeLoader(text)
        self.text = text
        self.file = file
        self.book = book

    def document(self) -> Node | None:
        """The first document; further ones are a mistake."""
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except _TooDeep as error:
            self.book.add(error.where, "", f"nested more than {self.deepest} levels deep")
        except yaml.YAMLError as error:
            self.book.add(self._here(), "", f"not YAML: {' '.join(str(error).split())}")
        except (ValueError, OverflowError):  # PyYAML turns an escape such as "\UFFFFFFFF" into a character unchecked
            self.book.add(self._here(), "", "an escape that stands for no character")
        finally:
            self.loader.dispose()
        return None

    def _document(self) -> Node | None:
        self._next()
        if self.loader.check_event(yaml.StreamEndEvent):
            self.book.add(Where(self.file, 1, 1), "", "the file is empty", self.begins)
            return None
        self._next()
        node = self._node(self._next(), 0)
        self._next()
        if not self.loader.check_event(yaml.StreamEndEvent):
            second = self._next()
            self.book.add(self._where(second), "", "a second document", "one file is one document; remove the ---")
        return node

    def _next(self) -> yaml.Event:
        event: yaml.Event = self.loader.get_event()  # type: ignore[no-untyped-call]
        return event

    def _node(self, event: yaml.Event, depth: int) -> Node:
        where = self._where(event)
        if depth > self.deepest:
            raise _TooDeep(where)
        if isinstance(event, yaml.AliasEvent):
            hint = f'write the value out; if text is meant, quote it: "*{event.anchor}"'
            self.book.add(where, "", f"an alias (*{event.anchor})", hint)
            return Scalar(where, f"*{event.anchor}", plain=False)
        self._refuse_decoration(event, where)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(where, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._entries(where, depth)
        assert isinstance(event, yaml.ScalarEvent)
        text = str(event.value)
        if _CONTROL.search(text):
            self.book.add(where, "", "a control character in a value")
        return Scalar(where, text, plain=not event.style)

    def _items(self, where: Where, depth: int) -> Items:
        items: list[Node] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            items.append(self._node(self._next(), depth + 1))
        self._next()
        return Items(where, tuple(items))

    def _entries(self, where: Where, depth: int) -> Entries:
        entries: list[tuple[Scalar, Node]] = []
        first: dict[str, Where] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            key = self._node(self._next(), depth + 1)
            value = self._node(self._next(), depth + 1)
            if not isinstance(key, Scalar):
                hint = 'a value that begins with { or [ needs quotes: "{…}"'
                self.book.add(key.where, "", "a key has to be plain text", hint)
            elif key.text == "<<" and key.plain:
                self.book.add(key.where, "", "a merge key (<<)", "write the keys out; `defaults:` saves most of that")
            elif key.text in first:
                hint = f"it stands in line {first[key.text].line} already"
                self.book.add(key.where, "", f'duplicate key "{key.text}"', hint)
            else:
                first[key.text] = key.where
                entries.append((key, value))
        self._next()
        return Entries(where, tuple(entries))

    def _refuse_decoration(self, event: yaml.Event, where: Where) -> None:
        anchor: str | None = getattr(event, "anchor", None)
        tag: str | None = getattr(event, "tag", None)
        if anchor is not None:
            hint = f'if text is meant, quote it: "&{anchor}…"'
            self.book.add(where, "", f"an anchor (&{anchor}); a config has no aliases", hint)
        if tag is not None:
            self.book.add(where, "", f"a tag ({tag}); the key alone says what a value is", "if text is meant, quote it")

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        if mark is not None and mark.index >= len(self.text) and error.context_mark is not None:
            mark = error.context_mark  # where it began says more than the end of the file
        where = self._here() if mark is None else Where(self.file, mark.line + 1, mark.column + 1)
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if "\\t" in problem and any(mistake.message.startswith("a tab") for mistake in self.book.mistakes):
            return  # said already, in plainer words
        rest = "" if mark is None else self.text[mark.index : mark.index + 80].splitlines()[:1]
        hint = _syntax_hint(problem, "".join(rest), self._line(where)) or self._unclosed(error, where)
        self.book.add(where, "", f"not YAML: {problem}", hint)

    def _unclosed(self, error: yaml.MarkedYAMLError, where: Where) -> str:
        """Where a list or mapping was opened in an earlier line and is still open here."""
        opened = error.context_mark
        if opened is None or opened.line + 1 >= where.line or self.text[opened.index : opened.index + 1] not in "[{":
            return ""
        return f'close the "{self.text[opened.index]}" of line {opened.line + 1}, column {opened.column + 1}'

    def _line(self, where: Where) -> str:
        lines = lines_of(self.text)
        return lines[where.line - 1] if 0 < where.line <= len(lines) else ""

    def _where(self, event: yaml.Event) -> Where:
        mark = event.start_mark
        assert mark is not None
        return Where(self.file, mark.line + 1, mark.column + 1)

    def _here(self) -> Where:
        mark = self.loader.get_mark()
        return Where(self.file, mark.line + 1, mark.column + 1)


class _TooDeep(Exception):
    def __init__(self, where: Where) -> None:
        self.where = where


def _syntax_hint(problem: str, rest: str, line: str) -> str:
    """What people usually meant where YAML's grammar gives up."""
    if "scanning an alias" in problem:
        return f'quote a value that begins with *: "{_word(line, "*") or "*"}"'
    if "cannot start any token" in problem:
        return f'quote it: "{_word(line, rest[:1])}"' if rest else "quote the value"
    if "mapping values are not allowed" in problem:
        return "quote a value that has a colon and a space in it, or check the indentation"
    if "'{'" in problem or "'['" in problem or ("flow sequence" in problem and "{" in line):
        return 'inside [ ] quote what has { } in it: ["/orders/{id}"]'
    if "sequence entries are not allowed" in problem:
        return 'quote a lone dash: "-"; a list begins on the next line'
    if "expected <block end>" in problem:
        return "check the indentation, and quote values that begin with [ or {"
    return ""


def _word(line: str, first: str) -> str:
    """The word of this line that begins with this character."""
    found = re.search(rf"(?<![^\s\[{{,]){re.escape(first)}[^\s,\]}}]*", line) if first else None
    return found[0] if found else ""
