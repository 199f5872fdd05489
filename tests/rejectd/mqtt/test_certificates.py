"""rejectd.mqtt.certificates: when certificates end, as the openssl command says it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from prometheus_client import CollectorRegistry

from rejectd.contract.settings import Mqtt
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import certificates


def openssl_end(file: Path) -> float:
    command = ["openssl", "x509", "-in", str(file), "-noout", "-enddate"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(ssl.cert_time_to_seconds(told.strip().removeprefix("notAfter=")))


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.mark.parametrize("days", [-1, 2, 14_000])  # from 2050 on the year has four digits
def test_the_end_is_that_which_openssl_sees(tmp_path: Path, days: int) -> None:
    certificate, _ = Authority(tmp_path).sign("client", days=days)
    assert certificates.not_after(der(certificate)) == openssl_end(certificate)
    assert certificates.first_end(certificate) == openssl_end(certificate)


def test_of_a_chain_the_first_end_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    late, _ = authority.sign("late", days=300)
    early, _ = authority.sign("early", days=100)
    chain = tmp_path / "chain.crt"
    chain.write_text(late.read_text() + early.read_text())
    assert certificates.first_end(chain) == openssl_end(early)


def test_every_cut_of_a_certificate_is_refused_as_no_certificate(tmp_path: Path) -> None:
    whole = der(Authority(tmp_path).file)
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r".+"):
            certificates.not_after(whole[:size])


def test_the_metrics_show_each_certificate_and_zero_where_there_is_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client, key = authority.sign("client", days=30)
    registry = CollectorRegistry()
    ledger = Ledger("run", margin=Margin(0))
    metrics = Metrics(registry, cameras=[], products=[], snapshot=ledger.snapshot)

    def end(name: str) -> float | None:
        return registry.get_sample_value("rejectd_certificate_expiry_timestamp_seconds", {"certificate": name})

    settings = Mqtt(host="localhost", tls=True, tls_ca=authority.file, tls_cert=client, tls_key=key)
    certificates.show_files(settings, metrics)
    assert (end("client"), end("authority"), end("broker")) == (openssl_end(client), openssl_end(authority.file), 0)
    certificates.show_brokers(der(client), metrics)
    assert end("broker") == openssl_end(client)
    certificates.show_brokers(b"\x30", metrics)
    assert end("broker") == 0, "the connection goes on, whatever its certificate looks like"
    certificates.show_brokers(None, metrics)
    assert end("broker") == 0
