from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mixer import release
from mixer.errors import BuildError
from mixer.release import Signer, ensure_certificate, load_signer
from swupd.formats import signature
from swupd.report import TextReport


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return signature.make_certificate("Test", 1000, datetime.now(UTC))


@pytest.fixture(scope="module")
def other_pair() -> tuple[bytes, bytes]:
    return signature.make_certificate("Other", 1000, datetime.now(UTC))


def write(directory: Path, certificate: bytes, key: bytes) -> tuple[Path, Path]:
    (directory / "c.pem").write_bytes(certificate)
    (directory / "k.pem").write_bytes(key)
    return directory / "c.pem", directory / "k.pem"


def test_the_first_build_makes_certificate_and_key(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certs/c.pem", tmp_path / "keys/k.pem"

    ensure_certificate(certificate, key, TextReport())

    assert key.stat().st_mode & 0o777 == 0o600
    assert certificate.stat().st_mode & 0o777 == 0o644
    made = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert timedelta(days=3650) < made.not_valid_after_utc - datetime.now(UTC) < timedelta(days=3653)
    load_signer(certificate, key, TextReport())


def test_what_exists_is_left_alone(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    certificate, key = write(tmp_path, *pair)

    ensure_certificate(certificate, key, TextReport())

    assert (certificate.read_bytes(), key.read_bytes()) == pair


def test_a_key_without_certificate_is_not_replaced(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    certificate, key = write(tmp_path, *pair)
    certificate.unlink()

    with pytest.raises(BuildError, match="but no certificate"):
        ensure_certificate(certificate, key, TextReport())

    assert key.read_bytes() == pair[1]


def test_a_signature_is_accepted_by_clients(pair: tuple[bytes, bytes]) -> None:
    der = Signer(*pair).sign(b"data")

    signature.verify(b"data", der, signature.load_certificates(pair[0]))


def test_a_valid_signature_of_the_same_data_is_kept(pair: tuple[bytes, bytes], other_pair: tuple[bytes, bytes]) -> None:
    signer = Signer(*pair)
    former = signer.sign(b"data")

    assert signer.sign_again(b"data", former) == former
    assert signer.sign_again(b"other", former) != former
    assert signer.sign_again(b"data", b"damaged") != b"damaged"
    signer.sign_again(b"data", None)
    assert Signer(*other_pair).sign_again(b"data", former) != former


def test_a_key_of_another_certificate_is_refused(
    tmp_path: Path, pair: tuple[bytes, bytes], other_pair: tuple[bytes, bytes]
) -> None:
    certificate, key = write(tmp_path, pair[0], other_pair[1])

    with pytest.raises(BuildError, match="does not belong to the certificate") as caught:
        load_signer(certificate, key, TextReport())

    assert caught.value.hint


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    expired = signature.make_certificate("Test", 1, datetime.now(UTC) - timedelta(days=2))
    certificate, key = write(tmp_path, *expired)

    with pytest.raises(BuildError, match="cannot sign with"):
        load_signer(certificate, key, TextReport())


def test_an_end_that_comes_near_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soon = signature.make_certificate("Test", release.EXPIRY_WARNING_DAYS - 1, datetime.now(UTC))

    load_signer(*write(tmp_path, *soon), TextReport())

    assert "signing certificate ends on" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["c.pem", "k.pem"])
def test_a_missing_file_is_named(tmp_path: Path, pair: tuple[bytes, bytes], missing: str) -> None:
    certificate, key = write(tmp_path, *pair)
    (tmp_path / missing).unlink()

    with pytest.raises(BuildError, match=f"{missing} does not exist"):
        load_signer(certificate, key, TextReport())


def test_files_that_are_no_pem_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot sign with"):
        load_signer(*write(tmp_path, b"x", b"y"), TextReport())
