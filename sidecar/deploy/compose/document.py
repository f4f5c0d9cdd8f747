"""The user's compose file as a document that knows where each key stands, and what we add to it as lines."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, merge_attrib
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.terms import Where

MAX_BYTES = 4 << 20  # a compose file has some KiB; a larger one is something else
WIDTH = 1 << 20  # no line of the user's is folded
_BARE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*\Z", re.ASCII)
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"))  # YAML 1.1 reads other things


def read(text: str, name: str) -> CommentedMap:
    """Parse one compose file. Raises ConfigErrors with the place of what cannot be read."""
    if len(text) > MAX_BYTES:
        raise _invalid(name, 0, 0, f"{len(text)} characters long; a compose file has at most {MAX_BYTES}")
    try:
        document = _yaml(text).load(text)
    except DuplicateKeyError as error:
        raise _marked(name, error, "each key once; the second one would win silently") from None
    except MarkedYAMLError as error:
        hint = "keep one document in the file" if "another document" in str(error) else "this is not YAML"
        raise _marked(name, error, hint) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise _invalid(name, 0, 0, f"this cannot be read as YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, CommentedMap):
        raise _invalid(name, 1, 1, "a compose file is a mapping with `services:`")
    return document


def render(value: Any, like: str, depth: int = 0) -> list[str]:
    """A mapping as lines without line ends, indented as the text it is for, `depth` columns in."""
    stream = io.StringIO()
    _yaml(like).dump(value, stream)
    return [" " * depth + line if line else line for line in stream.getvalue().splitlines()]


def place(holder: Any, key: Any, name: str) -> Where:
    """Where a key of this mapping, or an item of this list, stands; the mapping where the key came by a merge."""
    try:
        line, column = holder.lc.key(key) if isinstance(holder, CommentedMap) else holder.lc.item(key)
    except (AttributeError, KeyError, TypeError):
        line, column = getattr(getattr(holder, "lc", None), "line", None) or 0, 0
    return Where(name, line + 1, column + 1)


def inherited(service: CommentedMap) -> CommentedMap:
    """What a service has by merge keys (`<<`) and not of its own, written out."""
    own = set(service._ok)
    return CommentedMap((key, plain(service[key])) for key in service if key not in own)


def own_keys(service: CommentedMap) -> list[Any]:
    """The keys that are written in this mapping itself, in their order."""
    return [key for key in service if key in service._ok]


def merged_from(service: CommentedMap) -> list[Any]:
    """The mappings that its merge keys name."""
    return list(getattr(service, merge_attrib, ()))


def plain(value: Any) -> Any:
    """A copy without anchors, merges and comments; scalars stay as they were written."""
    if isinstance(value, Mapping):
        return CommentedMap((key, plain(value[key])) for key in value)
    if isinstance(value, list):
        return CommentedSeq(plain(each) for each in value)
    return value


def made(value: Any) -> Any:
    """What we add, as nodes: text that any reader of YAML takes for text is bare, all other is quoted."""
    if isinstance(value, dict):
        return CommentedMap((made_key(key), made(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        listed = CommentedSeq(made(each) for each in value)
        if all(isinstance(each, str) for each in value):
            listed.fa.set_flow_style()
        return listed
    return _quoted(value) if isinstance(value, str) else value


def made_key(key: str) -> str:
    """A key, quoted where it must be."""
    return _quoted(key)


def lines_of(value: Any) -> Iterator[tuple[str, str]]:
    """`KEY: value`, `- KEY=value` and plain text alike, as pairs; a key without a value has an empty one."""
    if isinstance(value, Mapping):
        for key in value:
            yield str(key), "" if value[key] is None else str(value[key])
    elif isinstance(value, list):
        for each in value:
            key, _, text = str(each).partition("=")
            yield key, text
    elif value is not None:
        yield "", str(value)


def _quoted(text: str) -> str:
    bare = _BARE.match(text) and text.lower() not in _WORDS
    return text if bare else DoubleQuotedScalarString(text)


def _yaml(text: str) -> Any:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    mapping, offset = _indents(text)
    yaml.indent(mapping=mapping, sequence=offset + 2, offset=offset)
    return yaml


def _indents(text: str) -> tuple[int, int]:
    """How far keys stand in below their parent, and dashes: the first of each in the text, else 2 and 2."""
    mapping = offset = None
    above: int | None = None
    for line in text.splitlines():
        content = line.lstrip(" ")
        if not content or content[0] == "#":
            continue
        depth = len(line) - len(content)
        if above is not None:
            if content.startswith("- ") and offset is None and depth >= above:
                offset = depth - above
            elif mapping is None and depth > above and not content.startswith("-"):
                mapping = depth - above
        above = depth if content.split(" #")[0].rstrip().endswith(":") and not content.startswith("- ") else None
    return mapping or 2, 2 if offset is None else offset


def _marked(name: str, error: MarkedYAMLError, hint: str) -> ConfigErrors:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return _invalid(name, line, column, str(error.problem or error.context or "not YAML").splitlines()[0], hint)


def _invalid(name: str, line: int, column: int, message: str, hint: str = "") -> ConfigErrors:
    return ConfigErrors([Mistake(Where(name, line, column), "", message, hint)])
