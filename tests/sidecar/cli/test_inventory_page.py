"""The inventory's page: whatever names say, they are text and nothing else; and the page asks nobody for anything."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from sidecar.cli.inventory_page import POLICY, page

HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror='alert(2)'>\"&'`${x}<!--"
TAGS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "table", "caption",
        "thead", "tbody", "tr", "th", "td", "code", "span", "pre"}  # fmt: skip
NAMES = ("caller", "called", "owner", "direction", "listener", "protocol", "auth", "rule", "route", "methods", "first",
         "last", "where", "pattern")  # fmt: skip


class Reader(HTMLParser):
    """What a browser makes of it: elements, their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.comments: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def document(word: str) -> dict[str, Any]:
    """An inventory in which everything that somebody may have written is this."""
    edge = dict.fromkeys(NAMES, word)
    credential = {"kind": word, "id": word, "spiffe_id": word, "last": word, "since": word, "state": "dormant",
                  "change": word}  # fmt: skip
    return {
        "v": 1, "made": word, "trust_domain": word, "days": 30, "asked": {word: word},
        "edges": [edge | {"state": "used", "count": 3}], "credentials": [credential],
        "changes": [{"what": word, "where": word, "diff": word}, {"what": word, "where": word, "diff": ""}],
    }  # fmt: skip


def test_no_name_becomes_an_element_or_an_attribute() -> None:
    read, plain = Reader(page(document(HOSTILE))), Reader(page(document("harmless")))
    assert read.tags == plain.tags
    assert read.tags <= TAGS
    assert [name for name, _ in read.attributes] == [name for name, _ in plain.attributes]
    assert read.comments == []
    assert read.text.count("<script>alert(1)</script>") == plain.text.count("harmless")


def test_it_has_no_script_no_links_and_a_policy_that_forbids_them() -> None:
    read = Reader(page(document("orders")))
    assert ("content", POLICY) in read.attributes
    assert not {"src", "href", "onclick", "onload"} & {name for name, _ in read.attributes}
    assert "default-src 'none'" in POLICY


def test_an_empty_inventory_is_a_page_too() -> None:
    empty = document("x") | {"edges": [], "credentials": [], "changes": [], "asked": {}}
    assert "No edge." in page(empty)
    assert "Credentials" not in page(empty)
