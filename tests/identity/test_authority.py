import base64
import datetime
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import IdentityError, UsageError
from edgekit.identity import authority, layout
from edgekit.identity.certificates import load_certificate, load_request, new_key
from edgekit.runtime.identity import folder
from edgekit.runtime.identity.openssl import judge
from tests.enrolled import Enrolled


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    return Enrolled(tmp_path, "10.0.0.2", "server.lan")


def csr(*names: tuple[x509.ObjectIdentifier, str], key: object = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key or new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def test_keys_are_for_their_owner_alone_and_the_folder_is_whole(enrolled: Enrolled) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(enrolled.folder).iterdir()}
    assert modes.pop("lock")
    assert modes == {"ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644, "register.json": 0o644}


def test_openssl_takes_both_certificates_for_what_they_are(enrolled: Enrolled) -> None:
    server = layout.read(enrolled.folder, layout.SERVER)
    device = enrolled.device("nano")
    ca = str(device / "ca.pem")
    for host in ("10.0.0.2", "server.lan", "localhost", "127.0.0.1", "::1"):
        assert judge(server, ca, "sslserver", host) is None
    other = judge(server, ca, "sslserver", "10.0.0.3")
    assert other is not None and other.number in folder.OTHER_HOST
    # Neither can stand in for the other.
    assert judge(server, ca, "sslclient") is not None
    assert judge((device / "device.pem").read_bytes(), ca, "sslclient") is None
    assert judge((device / "device.pem").read_bytes(), ca, "sslserver") is not None
    curve = load_certificate(server, "").public_key()
    assert isinstance(curve, ec.EllipticCurvePublicKey) and isinstance(curve.curve, ec.SECP256R1)


def test_init_again_keeps_the_ca_and_renews_the_server(enrolled: Enrolled) -> None:
    before = {name: layout.read(enrolled.folder, name) for name in (layout.CA, layout.CA_KEY, layout.SERVER)}
    device = enrolled.device("nano")
    hosts = authority.init(enrolled.folder, ["10.0.0.3"])
    assert hosts[0] == "10.0.0.3" and "10.0.0.2" not in hosts
    after = {name: layout.read(enrolled.folder, name) for name in before}
    assert after[layout.CA] == before[layout.CA] and after[layout.CA_KEY] == before[layout.CA_KEY]
    assert after[layout.SERVER] != before[layout.SERVER]
    assert judge(after[layout.SERVER], str(device / "ca.pem"), "sslserver", "10.0.0.3") is None
    assert [entry.name for entry in authority.entries(enrolled.folder)] == ["nano"]


@pytest.mark.parametrize("host", ["10.0.0.2:50051", "", "a b", "http://x", "a" * 254, "ä.lan", "*"])
def test_a_host_that_is_none_changes_nothing(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match=r"--host .*without a port"):
        authority.init(str(tmp_path / "ca"), [host])
    assert not (tmp_path / "ca").exists()


def test_what_is_signed_says_the_name_and_the_time_and_is_in_the_register(enrolled: Enrolled) -> None:
    pem = (enrolled.device("Gärtner", days=2) / "device.pem").read_bytes()
    made = load_certificate(pem, "")
    (entry,) = authority.entries(enrolled.folder)
    assert [attribute.value for attribute in made.subject] == ["Gärtner"] and entry.name == "Gärtner"
    left = made.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=1, hours=23) < left <= datetime.timedelta(days=2)
    assert entry.serial == f"{made.serial_number:x}" and entry.ends == made.not_valid_after_utc.timestamp()


def test_a_request_for_another_name_is_not_signed(enrolled: Enrolled) -> None:
    request = (enrolled.device("nano") / "device.csr").read_bytes()
    before = authority.entries(enrolled.folder)
    with pytest.raises(IdentityError, match="certificate of 'nano', expected 'other': nothing was signed"):
        authority.sign(enrolled.folder, request, "it", only="other")
    assert authority.entries(enrolled.folder) == before


def test_a_request_again_is_a_renewal_and_another_key_is_refused(enrolled: Enrolled) -> None:
    request = (enrolled.device("nano") / "device.csr").read_bytes()
    authority.sign(enrolled.folder, request, "it")
    with pytest.raises(IdentityError, match="nano has a certificate for another key"):
        enrolled.device("nano")
    assert authority.revoke(enrolled.folder, "nano") == 2
    with pytest.raises(IdentityError, match="the key of this request was revoked as nano"):
        authority.sign(enrolled.folder, request, "it")
    enrolled.device("nano")


COMMON = NameOID.COMMON_NAME


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (lambda: b"", "it is no certificate request: .*edgekit enroll request"),
        (lambda: csr(), "expected one common name"),
        (lambda: csr((NameOID.ORGANIZATION_NAME, "x")), "expected one common name"),
        (lambda: csr((COMMON, "a"), (COMMON, "b")), "expected one common name"),
        (lambda: csr((COMMON, "a\nb")), "device name 'a.*nb' of 3 characters: .*printable"),
        (lambda: csr((COMMON, "a "), key=new_key()), "no space at either end"),
        (lambda: csr((COMMON, "a"), key=rsa.generate_private_key(65537, 2048)), "no key of the curve P-256"),
        (lambda: csr((COMMON, "a"), key=ec.generate_private_key(ec.SECP384R1())), "no key of the curve P-256"),
    ],
)
def test_requests_that_are_not_signed(enrolled: Enrolled, request_of: object, message: str) -> None:
    assert callable(request_of)
    with pytest.raises(IdentityError, match=message):
        authority.sign(enrolled.folder, request_of(), "it")
    assert authority.entries(enrolled.folder) == []


def test_a_request_whose_name_was_changed_is_refused(enrolled: Enrolled) -> None:
    path = folder.request(str(enrolled.place / "me"), "aaaa")
    der = subprocess.run(["openssl", "req", "-in", path, "-outform", "DER"], capture_output=True, check=True).stdout
    changed = x509.load_der_x509_csr(der.replace(b"aaaa", b"bbbb")).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(IdentityError, match="it was changed: its signature is not that of its key"):
        load_request(changed, "it")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_any_bytes_are_a_request_or_a_typed_error(enrolled_request: bytes, data: st.DataObject) -> None:
    der = bytearray(x509.load_pem_x509_csr(enrolled_request).public_bytes(serialization.Encoding.DER))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    text = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(bytes(der))
    text += b"-----END CERTIFICATE REQUEST-----\n"
    try:
        name, _ = load_request(text, "it")
    except IdentityError:
        return
    assert name == "nano"


@pytest.fixture(scope="module")
def enrolled_request(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Path(folder.request(str(tmp_path_factory.mktemp("request")), "nano")).read_bytes()


def test_a_key_that_others_can_read_is_not_used(enrolled: Enrolled) -> None:
    path = os.path.join(enrolled.folder, layout.CA_KEY)
    os.chmod(path, 0o640)
    with pytest.raises(IdentityError, match="can be read by others: chmod 600"):
        enrolled.device("nano")


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"cannot be written: No such file.*edgekit enroll init"):
        authority.revoke(str(tmp_path / "none"), "nano")
