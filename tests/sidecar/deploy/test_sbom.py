"""The list of parts: from what is installed, checked against the lock file, the same bytes each time."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest

from sidecar.deploy import sbom
from sidecar.deploy.sbom import Incomplete, Pin, differences, document, normal, parse_lock, system_components

LOCK = """\
# Made by `make lock`
anyio==4.16.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via coredis
Typing_Extensions==4.1 ; python_version < "3.13" \\
    --hash=sha256:{c}
"""
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
PINS = {"anyio": Pin("4.16.0", (A, B)), "typing-extensions": Pin("4.1", (C,))}


def installed(folder: Path, name: str, version: str, *lines: str) -> Distribution:
    """A distribution as pip leaves it."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join([f"Name: {name}", f"Version: {version}", *lines]) + "\n")
    return PathDistribution(place)


def test_a_lock_file_is_read_with_all_hashes() -> None:
    assert parse_lock(LOCK.format(a=A, b=B, c=C)) == PINS


def test_our_own_lock_file_is_read_whole() -> None:
    text = (Path(__file__).resolve().parents[3] / "requirements.lock").read_text()
    pins = parse_lock(text)
    assert len(pins) == sum("==" in line and not line.startswith((" ", "#")) for line in text.splitlines())
    assert sum(len(pin.hashes) for pin in pins.values()) == text.count("--hash=sha256:")
    assert all(pin.hashes for pin in pins.values())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"anyio": "4.16.0", "typing-extensions": "4.1"}, []),
        ({"anyio": "4.16.0", "typing-extensions": "4.1", "mesh": "9"}, []),
        ({"anyio": "4.15.0", "typing-extensions": "4.1"}, ["anyio 4.15.0 is installed, the lock file says 4.16.0"]),
        ({"anyio": "4.16.0"}, ["typing-extensions 4.1 is in the lock file, and is not installed"]),
        (
            {"anyio": "4.16.0", "typing-extensions": "4.1", "pip": "23"},
            ["pip 23 is installed, and the lock file has no such package"],
        ),
    ],
)
def test_where_installation_and_lock_differ(found: dict[str, str], words: list[str]) -> None:
    assert differences(found, PINS) == words


def test_a_document_has_every_part_and_who_needs_whom(tmp_path: Path) -> None:
    found = [
        installed(tmp_path, "mesh", "1.0", "Requires-Dist: anyio>=4", "Requires-Dist: ruff; extra == 'dev'"),
        installed(tmp_path, "anyio", "4.16.0", "License-Expression: MIT", "Requires-Dist: Typing.Extensions (>=4)"),
        installed(tmp_path, "typing_extensions", "4.1", "Classifier: License :: OSI Approved :: PSF"),
    ]
    made = document(found, PINS)
    assert made["metadata"]["component"]["purl"] == "pkg:pypi/mesh@1.0"
    parts = {part["name"]: part for part in made["components"]}
    assert set(parts) == {"anyio", "typing-extensions", "python"}
    assert [each["value"] for each in parts["anyio"]["properties"]] == [A, B]
    assert parts["anyio"]["licenses"] == [{"license": {"name": "MIT"}}]
    assert parts["typing-extensions"]["licenses"] == [{"license": {"name": "PSF"}}]
    assert {edge["ref"]: edge["dependsOn"] for edge in made["dependencies"]} == {
        "pkg:pypi/anyio@4.16.0": ["pkg:pypi/typing-extensions@4.1"],
        "pkg:pypi/mesh@1.0": ["pkg:pypi/anyio@4.16.0"],
        "pkg:pypi/typing-extensions@4.1": [],
    }


def test_the_same_installation_gives_the_same_bytes(tmp_path: Path) -> None:
    found = [installed(tmp_path, "anyio", "4.16.0"), installed(tmp_path, "typing_extensions", "4.1")]
    one, two = (json.dumps(document(each, PINS)) for each in (found, reversed(found)))
    assert one == two
    other = document(found, {**PINS, "anyio": Pin("4.16.0", (A,))})
    assert other["serialNumber"] != json.loads(one)["serialNumber"]


def test_what_the_lock_does_not_have_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(Incomplete, match="pip 23 is installed"):
        document([installed(tmp_path, "pip", "23")], {})


STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
"""


def test_the_systems_packages_are_those_that_are_installed() -> None:
    found = system_components(STATUS, 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\n')
    assert [part["purl"] for part in found] == [
        "pkg:deb/debian/adduser@3.134?arch=all&distro=debian-12",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
    ]


def test_the_program_says_why_it_made_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "empty.lock"
    lock.write_text("")
    assert sbom.main(["--lock", str(lock)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the lock file has no such package" in captured.err


def test_names_are_compared_as_installers_do() -> None:
    assert [normal(name) for name in ("A.b", "a__B", "a-b", "A_-.b")] == ["a-b"] * 4
