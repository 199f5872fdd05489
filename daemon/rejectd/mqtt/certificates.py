"""Reads when a certificate ends (RFC 5280, section 4.1). The fields before `notAfter` are skipped."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rejectd.contract.settings import Mqtt
from rejectd.metrics import Metrics

_UTC_TIME, _VERSION = 0x17, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def not_after(der: bytes) -> float:
    """The end of a certificate as Unix time. Raises ValueError where this is no certificate."""
    try:
        [(_, certificate)] = _elements(der)
        fields = [element for element in _elements(next(_elements(certificate))[1]) if element[0] != _VERSION]
        validity = fields[3][1]  # after serial number, signature and issuer
        _, (kind, end) = _elements(validity)
        text = end.decode("ascii")
        if kind == _UTC_TIME:  # two digits of the year, up to 2049
            text = ("19" if text >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (IndexError, StopIteration) as error:
        raise ValueError("this is no certificate") from error


def show_files(settings: Mqtt, metrics: Metrics) -> None:
    """Put into the metrics when our own certificates end."""
    for name, file in (("client", settings.tls_cert), ("authority", settings.tls_ca)):
        if settings.tls and file:
            metrics.certificate.labels(name).set(first_end(file))


def show_brokers(der: bytes | None, metrics: Metrics) -> None:
    """Put into the metrics when the broker's certificate ends; 0 if unknown."""
    try:
        metrics.certificate.labels("broker").set(not_after(der) if der else 0)
    except ValueError:  # OpenSSL trusts it, and reads more kinds than we do
        metrics.certificate.labels("broker").set(0)


def first_end(file: Path) -> float:
    """The earliest end of the certificates in a PEM file; 0 if none can be read."""
    try:
        text = file.read_text("ascii", "replace")
        blocks = [block.partition(_END)[0] for block in text.split(_BEGIN)[1:]]
        return min((not_after(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{block}{_END}")) for block in blocks), default=0.0)
    except (OSError, ValueError):
        return 0.0


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of DER data as tag and content."""
    while data:
        length, start = data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        if start + length > len(data):
            raise ValueError("it is cut off")
        yield data[0], data[start : start + length]
        data = data[start + length :]
