"""What is wrong with a pod, or odd about it: always with its place in the object, and with what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Place = tuple[str | int, ...]  # keys and indexes from the pod's (or its template's) top
Pod = dict[str, Any]  # `metadata` and `spec`, as JSON has them


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a pod from having a sidecar, or that its owner should know."""

    place: Place
    what: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{dotted(self.place)}: {self.what}" if self.place else self.what
        return f"{text}; {self.advice}" if self.advice else text


@dataclass(slots=True)
class Findings:
    """Where every step writes down what it finds; with a mistake in it, the pod is left as it was."""

    mistakes: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def refuse(self, place: Place, what: str, advice: str = "") -> None:
        """Note a mistake."""
        self.mistakes.append(Problem(place, what, advice))

    def warn(self, place: Place, what: str, advice: str = "") -> None:
        """Note something odd."""
        self.warnings.append(Problem(place, what, advice))


def dotted(place: Place) -> str:
    """`spec.containers[0].ports[1]`; a key that is no plain word stands in brackets and quotes."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text
