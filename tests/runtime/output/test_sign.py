"""Signed copies, as C2PA's own reader sees them."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
from PIL import Image
from support.outputs import records, save, tree
from support.program import command_line

from defectrt.synthesis.job import synthesize

c2pa = pytest.importorskip("c2pa", reason="the extra [c2pa] is not installed")
pytest.importorskip("cryptography", reason="makes the certificates of these tests")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: E402


def certificate(name, key, issuer, issuer_key, *, ca):
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    subject, by = (
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, n),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "plant"),
            ]
        )
        for n in (name, issuer)
    )
    build = x509.CertificateBuilder().subject_name(subject).issuer_name(by)
    build = build.public_key(key.public_key()).serial_number(x509.random_serial_number())
    build = build.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=3650))
    build = build.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    others = "content_commitment key_encipherment data_encipherment key_agreement encipher_only"
    usage = dict.fromkeys([*others.split(), "decipher_only"], False)
    usage |= {"digital_signature": not ca, "key_cert_sign": ca, "crl_sign": ca}
    build = build.add_extension(x509.KeyUsage(**usage), critical=True)
    build = build.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    build = build.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    if not ca:
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        build = build.add_extension(uses, critical=False)
    return build.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def keys(tmp_path):
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("signer", own, "root", root, ca=False)
    (tmp_path / "chain.pem").write_bytes(chain + certificate("root", root, "root", root, ca=True))
    (tmp_path / "key.pem").write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return ["--certificate", tmp_path / "chain.pem", "--key", tmp_path / "key.pem"]


@pytest.fixture
def made(fake_engine, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        save(tmp_path / "good" / f"{i}.png", rng.integers(140, 170, (48, 40), np.uint8))
    synthesize(tmp_path / "good", tmp_path / "out", quiet=True, engine=fake_engine[0]).check()
    return tmp_path / "out"


def test_every_made_picture_is_signed_and_stays_what_it_was(made, keys, tmp_path):
    before = tree(made)
    done = command_line("sign", made, "--out", tmp_path / "signed", *keys)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(made) == before
    images = {r["image"] for r in records(made)}
    assert tree(tmp_path / "signed").keys() == images
    for image in images:
        path = tmp_path / "signed" / image
        with path.open("rb") as file, c2pa.Reader("image/png", file) as reader:
            said = json.loads(reader.json())
        manifest = said["manifests"][said["active_manifest"]]
        failures = {
            f["code"] for f in said["validation_results"]["activeManifest"].get("failure", [])
        }
        assert failures <= {"signingCredential.untrusted"}  # by nobody that the reader knows
        assert manifest["claim_generator_info"][0]["name"] == "defectrt"
        assert "compositeWithTrainedAlgorithmicMedia" in json.dumps(manifest["assertions"])
        np.testing.assert_array_equal(
            np.asarray(Image.open(path)), np.asarray(Image.open(made / image))
        )
        assert command_line("inspect", path).returncode == 0
    changed = bytearray(path.read_bytes())
    changed[-40] ^= 1
    path.write_bytes(changed)
    with path.open("rb") as file, c2pa.Reader("image/png", file) as reader:
        assert reader.get_validation_state() == "Invalid"
    done = command_line("sign", made, "--out", tmp_path / "signed", *keys)
    assert (done.returncode, "there already" in done.stderr) == (5, True)


def test_what_cannot_be_signed_is_said(made, keys, tmp_path):
    out = ["--out", tmp_path / "signed"]
    done = command_line("sign", tmp_path / "good" / "0.png", *out, *keys)
    assert (done.returncode, "says nothing of how it was made" in done.stderr) == (3, True)
    (tmp_path / "key.pem").write_text("no key")
    done = command_line("sign", made, *out, *keys)
    assert (done.returncode, "cannot sign by es256" in done.stderr) == (3, True)
    assert not (tmp_path / "signed").exists()
