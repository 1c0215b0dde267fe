"""The certificate by which clients know the OPC UA server, with its key: made once, or given."""

import contextlib
import socket
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from runtime.common.errors import UserError
from runtime.common.files import read_secret_file, write_bytes
from runtime.common.locks import one_writer
from runtime.common.notices import say

DAYS = 3650  # a line that stops after a year because of a date helps nobody
SMALLEST_KEY = 2048  # bits


@dataclass(frozen=True, repr=False)
class Identity:
    """A certificate, its RSA key, and the application's URI that stands in it."""

    certificate: x509.Certificate
    key: RSAPrivateKey
    uri: str


def own_uri() -> str:
    """Return the application's URI of this machine."""
    return f"urn:{socket.gethostname()}:cflow-edge"


def make_if_missing(certificate: Path, key: Path) -> None:
    """Make a self-signed certificate and its key, which its owner alone may read, unless both are there.

    Raises `UserError` where one of them is missing, `OSError` where they cannot be written.
    """
    with one_writer(certificate, str(certificate.parent), "name another folder, or end the other run", 10.0):
        there = [path for path in (certificate, key) if path.exists()]
        if len(there) == 1:
            raise UserError(
                f"{certificate.parent} must hold {certificate.name} and {key.name}, or neither",
                there[0].name,
                "put the other one back, or remove this one",
            )
        if not there:
            _make(certificate, key)


def _make(certificate: Path, key: Path) -> None:
    from asyncua.crypto import cert_gen

    private = cert_gen.generate_private_key()
    host = socket.gethostname()
    names = [x509.UniformResourceIdentifier(own_uri()), x509.DNSName(host)]
    usage = [ExtendedKeyUsageOID.SERVER_AUTH]
    made = cert_gen.generate_self_signed_app_certificate(private, f"cflow-edge@{host}", {}, names, usage, DAYS)
    write_bytes(key, cert_gen.dump_private_key_as_pem(private), 0o600)
    write_bytes(certificate, made.public_bytes(Encoding.PEM))


def read_identity(certificate: Path, key: Path) -> Identity:
    """Read a certificate and its key, both PEM; what clients may object to is said on stderr.

    Raises `OSError` where a file cannot be read, `UserError` for what is none or no pair.
    """
    try:
        found = x509.load_pem_x509_certificate(read_secret_file(certificate).encode())
    except ValueError:
        raise UserError(f"{certificate} must hold a certificate (PEM)", "something else") from None
    try:
        private = load_pem_private_key(read_secret_file(key).encode(), None)
    except (ValueError, TypeError):  # TypeError: it has a password
        raise UserError(f"{key} must hold a private key (PEM) without a password", "something else") from None
    if not isinstance(private, RSAPrivateKey) or private.key_size < SMALLEST_KEY:
        raise UserError(f"{key} must hold an RSA key of {SMALLEST_KEY} bits or more", "another", "openssl genrsa 2048")
    if private.public_key() != found.public_key():
        raise UserError(f"{key} must be the key of {certificate}", "that of another", "give the pair")
    if key.stat().st_mode & 0o077:
        say(f"note: {key} can be read by others on this machine; chmod 600 {key}")
    if not found.not_valid_before_utc < datetime.now(timezone.utc) < found.not_valid_after_utc:
        say(f"note: {certificate} is not valid today; clients may refuse it")
    return Identity(found, private, _uri(found, certificate))


def _uri(certificate: x509.Certificate, path: Path) -> str:
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if uris := names.get_values_for_type(x509.UniformResourceIdentifier):
            return str(uris[0])
    say(f"note: {path} names no application URI, which most OPC UA clients want")
    return own_uri()
