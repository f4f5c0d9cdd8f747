"""Conditions of rules, read: what `when:` says in a line each, like `path customer is claim customer_id`.

    SUBJECT is [not] VALUE                          VALUE is a subject, or text, a number, true or false
    SUBJECT in [A, B, …]      SUBJECT not in [A, B, …]
    SUBJECT begins with TEXT
    SUBJECT exists
    claim NAME has VALUE                            one of a list
    time between 08:00 and 18:00 [Europe/Berlin]    the end not included; over midnight where the end comes first
    day in [mon, tue, …] [Europe/Berlin]

    SUBJECT: path NAME (or {NAME}) · claim NAME · header NAME · query NAME · caller · namespace · service · method ·
             subject · issuer

Quotes make text of anything. The language is total: it has no loops and no regular expressions, and no condition can
fail to have an answer. What each of them means is in `sidecar.policy.conditions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal
from zoneinfo import ZoneInfo

from certs.errors import MeshError

Operator = Literal["is", "in", "begins with", "exists", "has", "between"]
Literal_ = str | int | bool

NAMED: Final = ("path", "claim", "header", "query")  # subjects that have a name of their own
PLAIN: Final = ("caller", "namespace", "service", "method", "subject", "issuer")
OF_TOKENS: Final = frozenset(("claim", "subject", "issuer"))
OF_HTTP: Final = frozenset(("path", "header", "query", "method", *OF_TOKENS))
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TOKEN: Final = re.compile(r"""\s*(?:(\{[^{}\s]+\})|"([^"]*)"|'([^']*)'|([\[\],])|([^\s\[\],"']+))""")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_HOUR: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z|24:00\Z")
LONGEST: Final = 512  # characters


class ConditionError(MeshError):
    """What stands there is no condition; the message says why."""

    name = "condition"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at."""

    kind: str  # one of NAMED and PLAIN, or `time` or `day`
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as it was written and as it was understood."""

    text: str
    subject: Subject
    operator: Operator
    negated: bool = False
    values: tuple[Literal_, ...] = ()  # any of them; of `time` the two minutes of the day, of `day` days from 0
    other: Subject | None = None  # in the place of values
    zone: str = "UTC"

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read one. Raises ConditionError."""
        if len(text) > LONGEST:
            raise ConditionError(f"it is {len(text)} characters long; at most {LONGEST} are allowed")
        return _Reader(text).condition()

    def subjects(self) -> tuple[Subject, ...]:
        """All that it looks at."""
        return (self.subject,) if self.other is None else (self.subject, self.other)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    quoted: bool = False


class _Reader:
    """Reads one condition from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = _words(text)
        self._at = 0

    def condition(self) -> Condition:
        subject = self._subject("a condition begins with")
        match self._next(f"after `{subject}` comes"):
            case "between" if subject.kind == "time":
                found = self._between(subject)
            case "in" | "not" | "is" if subject.kind == "time":
                raise ConditionError("`time` has a `between`: time between 08:00 and 18:00 Europe/Berlin")
            case "in" if subject.kind == "day":
                found = self._days(subject)
            case "in":
                found = Condition(self._text, subject, "in", values=self._list())
            case "not" if self._peek() == "in" and subject.kind != "day":
                self._at += 1
                found = Condition(self._text, subject, "in", negated=True, values=self._list())
            case "is" if subject.kind != "day":
                negated = self._peek() == "not"
                self._at += negated
                found = self._compared(subject, "is", negated=negated)
            case "has" if subject.kind == "claim":
                found = self._compared(subject, "has")
            case "begins" if self._peek() == "with" and subject.kind != "day":
                self._at += 1
                found = self._compared(subject, "begins with")
            case "exists" if subject.kind != "day":
                found = Condition(self._text, subject, "exists")
            case other:
                raise ConditionError(f"{other!r} is no comparison{_near(other, _comparisons(subject))}")
        if self._at < len(self._words):
            raise ConditionError(f"{self._words[self._at].text!r} is too much; put quotes around text with blanks")
        return found

    def _subject(self, lead: str) -> Subject:
        word = self._take(lead, "path, claim, header, query, caller, service, method or time")
        if not word.quoted and word.text.startswith("{"):
            return Subject("path", word.text[1:-1])
        if not word.quoted and word.text in NAMED:
            name = self._take(f"after `{word.text}` comes", "a name").text
            return Subject(word.text, name.lower() if word.text == "header" else name)
        if not word.quoted and word.text in (*PLAIN, "time", "day"):
            return Subject(word.text)
        raise ConditionError(f"{word.text!r} is nothing to look at{_near(word.text, (*NAMED, *PLAIN, 'time', 'day'))}")

    def _compared(self, subject: Subject, operator: Operator, *, negated: bool = False) -> Condition:
        word = self._look(f"after `{operator}` comes a value")
        if not word.quoted and (word.text.startswith("{") or word.text in (*NAMED, *PLAIN)):
            other = self._subject("")
            return Condition(self._text, subject, operator, negated=negated, other=other)
        self._at += 1
        value = word.text if operator == "begins with" else _literal(word)
        if value == "" and operator == "begins with":
            raise ConditionError("everything begins with nothing; write `exists`")
        return Condition(self._text, subject, operator, negated=negated, values=(value,))

    def _list(self) -> tuple[Literal_, ...]:
        if self._next("after `in` comes") != "[":
            raise ConditionError("a list stands in brackets: in [a, b]")
        values: list[Literal_] = []
        while True:
            word = self._take("the list lacks", "its end, `]`")
            if word.text in ("[", "]", ",") and not word.quoted:
                raise ConditionError("write the list as [a, b], without empty places")
            values.append(_literal(word))
            match self._next("the list lacks its end, `]`, after"):
                case "]":
                    return tuple(dict.fromkeys(values))
                case ",":
                    continue
                case other:
                    raise ConditionError(f"a comma is missing before {other!r}; put quotes around text with blanks")

    def _between(self, subject: Subject) -> Condition:
        begin = _minute(self._next("after `between` comes"))
        if self._next("after the first time comes") != "and":
            raise ConditionError("write: time between 08:00 and 18:00")
        end = _minute(self._next("after `and` comes"))
        if begin == end:
            raise ConditionError("it begins when it ends, and so is never")
        return Condition(self._text, subject, "between", values=(begin, end), zone=self._zone())

    def _days(self, subject: Subject) -> Condition:
        days = []
        for value in self._list():
            if value not in DAYS:
                raise ConditionError(f"{value!r} is no day{_near(str(value).lower()[:3], DAYS)}")
            days.append(DAYS.index(str(value)))
        return Condition(self._text, subject, "in", values=tuple(days), zone=self._zone())

    def _zone(self) -> str:
        if self._at >= len(self._words):
            return "UTC"
        name = self._next("")
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            problem = f"{name!r} is no time zone that this machine knows; write one like Europe/Berlin"
            raise ConditionError(problem) from None
        return name

    def _peek(self) -> str:
        at = self._at
        return self._words[at].text if at < len(self._words) and not self._words[at].quoted else ""

    def _look(self, lead: str) -> _Word:
        if self._at >= len(self._words):
            raise ConditionError(f"it ends too soon: {lead}")
        return self._words[self._at]

    def _take(self, lead: str, what: str) -> _Word:
        word = self._look(f"{lead} {what}")
        self._at += 1
        return word

    def _next(self, lead: str) -> str:
        return self._take(lead, "more").text


def _words(text: str) -> list[_Word]:
    words, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ConditionError(f"a quote is not closed: {text[at:].strip()}")
        braces, double, single, mark, bare = match.groups()
        if double is not None or single is not None:
            words.append(_Word(double if double is not None else single, quoted=True))
        else:
            words.append(_Word(braces or mark or bare))
        at = match.end()
    return words


def _literal(word: _Word) -> Literal_:
    if word.quoted:
        return word.text
    if word.text in ("true", "false"):
        return word.text == "true"
    return int(word.text) if _NUMBER.match(word.text) else word.text


def _minute(text: str) -> int:
    match = _HOUR.match(text)
    if match is None:
        raise ConditionError(f"{text!r} is no time of day; write it as 08:00")
    return 24 * 60 if match[1] is None else int(match[1]) * 60 + int(match[2])


def _comparisons(subject: Subject) -> tuple[str, ...]:
    if subject.kind in ("time", "day"):
        return ("between",) if subject.kind == "time" else ("in",)
    return ("is", "is not", "in", "not in", "begins with", "exists", *(("has",) if subject.kind == "claim" else ()))


def _near(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it is one of: {', '.join(known)}"
