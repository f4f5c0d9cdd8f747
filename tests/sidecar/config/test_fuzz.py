"""Whatever the bytes: a config, or ConfigErrors."""

from __future__ import annotations

import random
import string
from pathlib import Path

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.config.fields import fields_of, records
from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors, nearest
from sidecar.config.schema import MeshConfig

EXAMPLE = (Path(__file__).parents[3] / "docs/mesh.example.yaml").read_bytes()
KEYS = sorted({spec.key for cls in records(MeshConfig) for spec in fields_of(cls)} | {"web", "exact", "present", "<<"})
WORDS = st.sampled_from(
    [
        "web",
        "**",
        "*",
        "http",
        "GET",
        "/a/{id}",
        "127.0.0.1:80",
        "5s",
        "1KiB",
        "true",
        "off",
        "no",
        "1:30",
        "~",
        "",
        "-",
    ]
)
SCALARS = WORDS | st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | SCALARS, inner, max_size=5),
    max_leaves=30,
)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def survives(data: bytes) -> None:
    """Loads, or raises ConfigErrors with at least one mistake that names its file."""
    try:
        load_bytes(data)
        return
    except ConfigErrors as errors:
        mistakes = errors.mistakes
    assert mistakes
    for mistake in mistakes:
        assert mistake.where.file == "mesh.yaml"
        assert mistake.message
        assert str(mistake).isprintable()


@QUICK
@given(st.binary(max_size=200))
@example(b"\xff\xfea\x00")
@example(b"a: \x00")
@example(b"\x85")
@example(b'a: "\\ud800"')
@example(b"? a\n: b")
@example(b"? [a]\n? {b}")
@example(b"a: |\n\t\n")
@example(b"&a")
@example(b"!")
@example(b"!<a>")
@example(b"%TAG ! tag:x,1:\n--- !a\n")
@example(b"...")
@example(b"---")
@example(b"--- \n...\n--- ")
@example(b"include: ['\\0']\ntrust_domain: a")
@example(b"include: [\"a\\0b\", '', '.', '/', '**', '[', 'a/../a']\ntrust_domain: a")
@example(b"trust_domain: a\nservices: {a: {limits: {pool: " + b"9" * 5000 + b"}}}")
def test_random_bytes(data: bytes) -> None:
    survives(data)


@QUICK
@given(st.text(alphabet=string.printable + "é\u2028\ud800\ufeff", max_size=200))
def test_random_text(text: str) -> None:
    survives(text.encode("utf-8", "surrogatepass"))


@QUICK
@given(TREES, st.booleans())
def test_random_yaml(tree: object, flow: bool) -> None:
    survives(yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True).encode("utf-8", "surrogatepass"))


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["web", "orders", "a"]),
        st.fixed_dictionaries({}, optional={spec.key: TREES for spec in fields_of(records(MeshConfig)[2])}),
        max_size=3,
    )
)
def test_random_services(services: object) -> None:
    survives(yaml.safe_dump({"trust_domain": "demo.mesh", "services": services}).encode())


@QUICK
@given(st.integers(0, 2**32))
def test_a_good_file_with_a_few_bytes_changed(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(EXAMPLE)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.choice(b"\t :-{}[]\"'#&*!|>%@`\n0a\xff")
            case 1:
                del data[at : at + dice.randint(1, 20)]
            case _:
                data[at:at] = data[dice.randrange(len(data)) :][: dice.randint(1, 40)]
    survives(bytes(data))


@QUICK
@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_the_nearest_word_is_one_of_the_candidates(word: str, candidates: list[str]) -> None:
    assert nearest(word, candidates) in [None, *candidates]


def test_a_slip_finds_its_word() -> None:
    words = ["from", "host", "method", "path", "headers", "source", "port", "shadow", "name"]
    slips = {
        "form": "from",
        "metod": "method",
        "hedaers": "headers",
        "Port": "port",
        "paths": "path",
        "scource": "source",
    }
    assert {slip: nearest(slip, words) for slip in slips} == slips
    assert nearest("colour", words) is None
    assert nearest("x" * 10_000, words) is None
