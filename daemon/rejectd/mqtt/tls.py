"""Sets up TLS as the settings say, and explains for each cause of failure what to do."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Mqtt
from revdist.files import trouble

_PROBE_S = 2.0
_HANDSHAKE_S = 3.0
_REASON = re.compile(r"\[(?:SSL|X509)[^\]]*?(\w+)\]")  # such as [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]

# X509_V_ERR_*, which tell why a certificate is not trusted
_NOT_YET_VALID, _EXPIRED, _REVOKED, _HOST, _ADDRESS = 9, 10, 23, 62, 64

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_OLD = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "INSUFFICIENT_SECURITY")


class TlsError(RejectdError):
    """The files of the TLS settings cannot be used."""


class _Socket(ssl.SSLSocket):
    """A socket that closes when the handshake fails or takes too long.

    paho would leave it open, or wait for a whole keep alive.
    """

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(_HANDSHAKE_S)
        try:
            super().do_handshake(block)
        except (OSError, ValueError):
            self.close()
            raise


def context(settings: Mqtt) -> ssl.SSLContext:
    """Build the TLS context for the broker from the settings.

    Raises:
        TlsError: with the file and what is wrong with it.
    """
    tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls_context.sslsocket_class = _Socket
    if settings.tls_ca is None:
        tls_context.load_default_certs()
    else:
        ca = settings.tls_ca
        _load("mqtt.tls_ca", ca, "CERTIFICATE", lambda: tls_context.load_verify_locations(cafile=ca))
    if settings.tls_cert and settings.tls_key:
        cert, key = settings.tls_cert, settings.tls_key
        _load("mqtt.tls_cert", cert, "CERTIFICATE", lambda: None)
        _load("mqtt.tls_key", key, "PRIVATE KEY", lambda: tls_context.load_cert_chain(cert, key, password=_refuse))
    return tls_context


def hint(error: OSError, settings: Mqtt) -> str:
    """What to do about a TLS connection that could not be opened."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _hint_for_certificate(error.verify_code, settings)
    reason = (error.reason if isinstance(error, ssl.SSLError) else "") or reason_in(str(error))
    if reason:
        return hint_for_reason(reason, settings)
    return _no_tls(settings)


def cause(error: OSError) -> str:
    """Why TLS failed, in words; without OpenSSL's place in its source file."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return f"TLS: {reason.lower().replace('_', ' ')}" if reason else str(error)


def reason_in(text: str) -> str:
    """OpenSSL's name of the reason in the text of an error; empty if there is none."""
    match = _REASON.search(text)
    return match[1] if match else ""


def hint_for_reason(reason: str, settings: Mqtt) -> str:
    """What to do about an error, by OpenSSL's name of its reason, such as an alert of the broker."""
    if any(part in reason for part in _NOT_TLS):
        return _no_tls(settings)
    if any(part in reason for part in _OLD):
        return "the broker and this machine have no version of TLS in common: allow TLS 1.2 or 1.3 at the broker"
    if settings.tls_cert is None and any(
        part in reason for part in ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")
    ):
        return "the broker wants a certificate of ours: set mqtt.tls_cert and mqtt.tls_key"
    if "UNKNOWN_CA" in reason:
        return "the broker does not know the authority that signed mqtt.tls_cert: add it to the broker's `cafile`"
    if "EXPIRED" in reason:
        return "mqtt.tls_cert has expired: renew it"
    if any(part in reason for part in ("CERTIFICATE", "HANDSHAKE_FAILURE", "ACCESS_DENIED")):
        return "the broker does not accept mqtt.tls_cert: its log says why"
    return "see the broker's log, and check mqtt.tls_ca, mqtt.tls_cert and mqtt.tls_key"


def alert(settings: Mqtt) -> str:
    """OpenSSL's name of the alert with which the broker refuses us; empty if it sends none.

    With TLS 1.3 the alert comes after the handshake, and is lost once we have sent anything; so this sends nothing.
    """
    try:
        with (
            socket.create_connection((settings.host, settings.port), _PROBE_S) as plain,
            context(settings).wrap_socket(plain, server_hostname=settings.host) as encrypted,
        ):
            encrypted.recv(1)
    except ssl.SSLError as error:
        return error.reason or ""
    except (OSError, ValueError, TlsError):
        pass
    return ""


def speaks_tls(settings: Mqtt) -> bool:
    """Whether something on the broker's port answers in TLS."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # only to see whether it is TLS: nothing is sent over it
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((settings.host, settings.port), _PROBE_S) as plain,
            unverified.wrap_socket(plain, server_hostname=settings.host),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "") and "PROTOCOL" not in (error.reason or "")
    except (OSError, ValueError):
        return False


def _no_tls(settings: Mqtt) -> str:
    return (
        f"does the broker speak TLS on port {settings.port}? 8883 is usual; for a port without TLS set mqtt.tls: false"
    )


def _hint_for_certificate(code: int, settings: Mqtt) -> str:
    if code in (_HOST, _ADDRESS):
        return f"the certificate is for another name: set mqtt.host to one in it, or have it made for {settings.host}"
    if code == _EXPIRED:
        return "renew the broker's certificate or that of its authority, or set this machine's clock"
    if code == _NOT_YET_VALID:
        return "set this machine's clock, or wait until the broker's certificate is valid"
    if code == _REVOKED:
        return "give the broker a new certificate"
    chain_hint = f", which {settings.tls_ca} is not, or have the broker send its whole chain" if settings.tls_ca else ""
    return f"set mqtt.tls_ca to the authority that signed the broker's certificate{chain_hint}"


def _load(setting: str, file: Path, kind: str, load: Callable[[], None]) -> None:
    """Have OpenSSL read a file. Raises TlsError with what is wrong with it, in words."""
    try:
        content = file.read_bytes()
        load()
    except ssl.SSLError as error:
        raise TlsError(f"{setting}: {file}: {_wrong(content, kind, error)}", hint=_format_hint(content, kind)) from None
    except OSError as error:
        explanation = trouble.explain(error, file)
        raise TlsError(f"{setting}: {file}: cannot be read: {explanation.cause}", hint=explanation.hint) from error
    except ValueError as error:
        raise TlsError(f"{setting}: {file}: {error}", hint="give a file in PEM format") from error
    if f"{kind}-----".encode() not in content:
        raise TlsError(f"{setting}: {file}: holds no {kind.lower()} in PEM format", hint=_format_hint(content, kind))


def _wrong(content: bytes, kind: str, error: ssl.SSLError) -> str:
    if "MISMATCH" in (error.reason or ""):
        return "this key does not belong to mqtt.tls_cert"
    if f"{kind}-----".encode() not in content:
        return f"holds no {kind.lower()} in PEM format"
    return f"cannot be used: {(error.reason or 'damaged').lower().replace('_', ' ')}"


def _format_hint(content: bytes, kind: str) -> str:
    command = "x509" if kind == "CERTIFICATE" else "pkey"
    if content.startswith((b"\x30\x82", b"\x30\x81")):
        return f"it looks like DER; turn it into PEM: openssl {command} -inform der -in FILE -out FILE.pem"
    if f"{kind}-----".encode() in content:
        return "give the key that this certificate was made with" if kind == "PRIVATE KEY" else "copy it again"
    return "give a file in PEM format, which begins with -----BEGIN"


def _refuse() -> str:
    raise ValueError("is encrypted, and a service cannot ask for its password; store it without: openssl pkey")
