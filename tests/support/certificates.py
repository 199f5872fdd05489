"""Authorities, servers and clients for TLS, made with the openssl command: good ones, and each kind of bad one."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """An authority with its certificate `NAME.crt`, which signs others."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.name = name
        self.file = directory / f"{name}.crt"
        subject = f"/CN=authority {name}"
        self._openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.crt"
        )

    def sign(self, name: str, *, host: str = "DNS:localhost", days: int = 2) -> tuple[Path, Path]:
        """A certificate and its key. Days below 0: it has expired."""
        self._openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.directory / "names").write_text(f"subjectAltName={host}")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key",
            "-CAcreateserial", "-days", str(days), "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def sign_for_later(self, name: str) -> tuple[Path, Path]:
        """A certificate that is not valid yet."""
        self._openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.directory / "ca.conf").write_text(_CONFIG)
        (self.directory / "index.txt").touch()
        (self.directory / "serial").write_text("77")
        signer = ("-cert", f"{self.name}.crt", "-keyfile", f"{self.name}.key")
        dates = ("-startdate", "20480101000000Z", "-enddate", "20490101000000Z")
        files = ("-in", f"{name}.csr", "-out", f"{name}.crt")
        self._openssl("ca", "-batch", "-notext", "-config", "ca.conf", *signer, *dates, *files)
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def der(self, file: Path) -> Path:
        """A certificate in the format that Windows likes."""
        self._openssl("x509", "-in", file.name, "-outform", "der", "-out", f"{file.stem}.der")
        return file.with_suffix(".der")

    def encrypted(self, key: Path) -> Path:
        """A key that needs a password."""
        target = f"{key.stem}-encrypted.key"
        self._openssl("pkey", "-in", key.name, "-aes256", "-passout", "pass:secret", "-out", target)
        return key.with_name(target)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.directory)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

_CONFIG = """[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = DNS:localhost
"""
