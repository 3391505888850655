"""Certificates as X.509 has them, with keys of ECDSA on the curve P-256."""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.errors import IdentityError
from edgekit.line.names import certificate_name_error

#: A board without a battery for its clock may be behind.
EARLIER = datetime.timedelta(days=1)
_COMMON_NAME = NameOID.COMMON_NAME


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_key(pem: bytes, what: str) -> ec.EllipticCurvePrivateKey:
    """The key in `pem`; IdentityError naming `what` when it is none of P-256."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{what} does not parse: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(f"{what} is no key of the curve P-256")
    return key


def load_certificate(pem: bytes, what: str) -> x509.Certificate:
    """The certificate in `pem`; IdentityError naming `what` when it is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"{what} does not parse: {error}") from None


def load_request(pem: bytes, what: str) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Name and public key of a certificate request; IdentityError when it is none that can be signed."""
    try:
        request = x509.load_pem_x509_csr(pem)
        valid, key = request.is_signature_valid, request.public_key()
        names = [attribute.value for attribute in request.subject]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise IdentityError(f"{what} is no certificate request: {error}; `edgekit enroll request` makes one") from None
    if not valid:
        raise IdentityError(f"{what} was changed: its signature is not that of its key; make it again")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(f"{what} has no key of the curve P-256: `edgekit enroll request` makes one")
    if len(names) != 1 or not isinstance(names[0], str) or not request.subject.get_attributes_for_oid(_COMMON_NAME):
        raise IdentityError(
            f"{what} is of {request.subject.rfc4514_string()!r}: expected one common name, the device's"
        )
    wrong = certificate_name_error(names[0])
    if wrong is not None:
        raise IdentityError(f"{what}: {wrong}")
    return names[0], key


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """The sha256 of a public key, hex."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def make_ca(key: ec.EllipticCurvePrivateKey, name: str, days: float) -> x509.Certificate:
    """The certificate of a CA for `name`, which it signs itself."""
    builder = _builder(name, key.public_key(), days).issuer_name(_name(name))
    builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    return builder.add_extension(_usage(signs_certificates=True), True).sign(key, hashes.SHA256())


def make_server(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey, hosts: Sequence[str],
    days: float,
) -> x509.Certificate:  # fmt: skip
    """The certificate of a server that is reached under `hosts`, names and IP addresses."""
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    builder = _builder("edgekit server", key, days).add_extension(names, False)
    return _sign(builder, ca, ca_key, ExtendedKeyUsageOID.SERVER_AUTH)


def make_device(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey, name: str, days: float
) -> x509.Certificate:
    """The certificate of the device `name`."""
    return _sign(_builder(name, key, days), ca, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH)


def _builder(name: str, key: ec.EllipticCurvePublicKey, days: float) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(_name(name)).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - EARLIER).not_valid_after(now + datetime.timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)


def _sign(
    builder: x509.CertificateBuilder,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    use: x509.ObjectIdentifier,
) -> x509.Certificate:
    builder = builder.issuer_name(ca.subject).add_extension(x509.BasicConstraints(False, None), True)
    builder = builder.add_extension(_usage(signs_certificates=False), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([use]), False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return builder.add_extension(identifier, False).sign(ca_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(_COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
