"""Fuzzers of documents: configuration, signing requests, trust bundles, enrolment files; each is nearly right."""
# ruff: noqa: PT017 - acceptance and refusal are both right here, and each has assertions of its own

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example
from hypothesis import strategies as st

from certs.bundle import TrustBundle
from certs.csr import MAX_CSR_BYTES, make_csr, parse_csr
from certs.enrolment import Enrolment, EnrolmentKey
from certs.errors import MeshError
from certs.keys import new_key, public_bytes
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.schema import MeshConfig
from tests.fuzz.depth import fuzz
from tests.kit.identities import a_bundle, a_root

DOMAIN = TrustDomain.parse("demo.mesh")
CONFIG = (Path(__file__).parents[2] / "docs/mesh.example.yaml").read_bytes()
KEY = new_key()
CSR = make_csr(KEY)
BUNDLE = a_bundle(a_root(), a_root(), sequence=7)
ENROLMENT = Enrolment(
    DOMAIN, "127.0.0.1:17012", ("ab" * 32,), "web-1", SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/web"),
    EnrolmentKey.generate(),
)  # fmt: skip
TOKENS = [
    b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"', b"\\u0000", b"\\ud800", b"\x00", b"\xff",
    b",", b":", b"\n", b"\t", b" ", b"- ", b"? ", b"&a ", b"*a", b"<<: ", b"!!python/object ", b"9" * 5000, b"[" * 3000,
    b"%", b"|", b">", b"#", b"..", b"**", b"spiffe://", b"0x10", b"1:30", b"no", b"=", b"{id}",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 3, 20]), st.sampled_from(TOKENS) | st.binary(max_size=3)),
    min_size=1, max_size=4,
)  # fmt: skip
Edits = list[tuple[float, int, bytes]]


def edited(data: bytes, edits: Edits) -> bytes:
    """The document with pieces replaced: each edit is where (a share), how much goes, what comes."""
    for share, goes, comes in edits:
        at = int(share * len(data))
        data = data[:at] + comes + data[at + goes :]
    return data


@fuzz(EDITS, brief=120, long=6_000)
def test_a_config_is_whole_or_every_mistake_has_a_place(edits: Edits) -> None:
    """Any text is a whole configuration, the same each time it is read, or ConfigErrors in which every mistake names
    a file, has a message and is printable; and it is decided in a bounded time.
    """
    data = edited(CONFIG, edits)
    try:
        config = load_bytes(data).config
    except ConfigErrors as errors:
        assert errors.mistakes
        for mistake in errors.mistakes:
            assert mistake.where.file
            assert mistake.message
            assert str(mistake).isprintable()
        return
    assert isinstance(config, MeshConfig)
    assert load_bytes(data).config == config


@fuzz(EDITS, brief=500, long=33_000)
def test_a_signing_request_is_for_the_key_that_signed_it(edits: Edits) -> None:
    """Whatever is done to a good request, it is refused, or it still asks for the very key whose holder made it."""
    try:
        found = parse_csr(edited(CSR, edits))
    except MeshError as error:
        assert error.name == "invalid_csr"
        return
    assert public_bytes(found.public_key) == public_bytes(KEY.public_key())


NOISE = st.binary(max_size=300) | st.integers(0, 2000).map(lambda size: b"\x30\x82" + size.to_bytes(2, "big") * 40)


@fuzz(NOISE, brief=300, long=16_000)
@example(CSR + b"\x00")
@example(b"\x30" * (MAX_CSR_BYTES + 1))
def test_noise_is_no_signing_request(data: bytes) -> None:
    """Bytes that nobody signed are refused, and so is a request with something behind it."""
    try:
        parse_csr(data)
    except MeshError as error:
        assert error.name == "invalid_csr"
        return
    raise AssertionError("accepted")


@fuzz(EDITS, brief=300, long=20_000)
def test_a_bundle_brings_no_root_that_was_not_in_it(edits: Edits) -> None:
    """Whatever is done to a bundle's document, it is refused, or it trusts only roots whose whole certificates stand in
    the document, and it is read the same once it has been written again.
    """
    data = edited(BUNDLE.to_jwks(), edits)
    try:
        found = TrustBundle.parse_jwks(DOMAIN, data)
    except MeshError as error:
        assert error.name == "invalid_bundle"
        return
    assert all(base64.b64encode(root.public_bytes(Encoding.DER)) in data.replace(b"\\/", b"/") for root in found.roots)
    again = TrustBundle.parse_jwks(DOMAIN, found.to_jwks())
    assert again.root_hashes() == found.root_hashes()
    assert again.sequence == found.sequence


MEMBERS = st.sampled_from(["use", "kty", "x5c", "kid", "keys", "crv", "spiffe_sequence", "version"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS | st.sampled_from([base64.b64encode(CSR).decode(), "x509-svid", "EC"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=12,
)


@fuzz(JSON, brief=300, long=20_000)
def test_json_of_any_shape_is_no_fault_of_ours(value: object) -> None:
    """Any JSON where a bundle or an enrolment file is expected is read or refused with an error of our own."""
    for text in (json.dumps(value), json.dumps({"keys": value}), json.dumps({"keys": [value]})):
        for read in (lambda data: TrustBundle.parse_jwks(DOMAIN, data), Enrolment.parse):
            try:
                read(text.encode())
            except MeshError as error:
                assert error.name in ("invalid_bundle", "invalid_enrolment")


@fuzz(EDITS, brief=400, long=26_000)
@example([(0.75, 20, b""), (0.77734375, 20, b"")])  # the key slides into the SPIFFE ID, which the message quoted
def test_an_enrolment_file_trusts_nothing_that_it_does_not_say(edits: Edits) -> None:
    """Whatever is done to an enrolment file, it is refused without its secret in the message, or it holds at least one
    pinned root, one proof and an identity of its own trust domain, and is read the same once written again.
    """
    data = edited(ENROLMENT.to_json(), edits)
    assert isinstance(ENROLMENT.proof, EnrolmentKey)
    try:
        found = Enrolment.parse(data)
    except MeshError as error:
        assert error.name == "invalid_enrolment"
        assert base64.b64encode(ENROLMENT.proof.private_bytes).decode() not in str(error)
        return
    assert found.root_sha256
    assert found.spiffe_id.trust_domain == found.trust_domain
    assert Enrolment.parse(found.to_json()) == found
