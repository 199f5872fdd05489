"""rejectd.mqtt.tls: each cause why TLS fails has a hint of its own. With a real mosquitto and real certificates."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from peers import Mosquitto, need_peer

from rejectd.contract.settings import Mqtt
from rejectd.mqtt import LinkError, connect


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    need_peer(shutil.which("openssl"), "openssl")
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.directory.chmod(0o755)
    return made


@pytest.fixture
def broker(authority: Authority, mosquitto_with: Callable[[str], Mosquitto]) -> Callable[..., Mqtt]:
    """Starts a broker with a certificate; returns the settings that work with it."""

    def start(name: str, rules: str = "", *, days: int = 2) -> Mqtt:
        cert, key = authority.sign(name, days=days) if days else authority.sign_for_later(name)
        made = mosquitto_with(f"allow_anonymous true\ncertfile {cert}\nkeyfile {key}\n{rules}")
        return Mqtt(host="localhost", port=made.port, tls=True, tls_ca=authority.file)

    return start


def refusal(settings: Mqtt, **changed: object) -> str:
    """What is said instead of a connection."""
    with pytest.raises(LinkError) as refused:
        connect(settings.model_copy(update=changed), client_id="test").close()  # type: ignore[arg-type]
    return str(refused.value)


def test_a_certificate_for_another_name_an_unknown_authority_and_a_plain_client_are_told_apart(
    broker: Callable[..., Mqtt], authority: Authority
) -> None:
    good = broker("good")
    connect(good, client_id="test").close()
    assert "the certificate is for another name: set mqtt.host" in refusal(good, host="127.0.0.1")
    assert "set mqtt.tls_ca to the authority" in refusal(good, tls_ca=None)
    other = Authority(authority.directory, "other")
    assert (
        f"set mqtt.tls_ca to the authority that signed the broker's certificate, which {other.file} is not"
        in refusal(good, tls_ca=other.file)
    )
    plain = refusal(good, tls=False, tls_ca=None)
    assert f"port {good.port} speaks TLS: set mqtt.tls: true" in plain


def test_an_expired_certificate_and_a_clock_that_is_behind_are_told_apart(broker: Callable[..., Mqtt]) -> None:
    assert "has expired; renew the broker's certificate or that of its authority" in refusal(broker("expired", days=-1))
    said = refusal(broker("future", days=0))
    assert "is not yet valid; set this machine's clock, or wait until the broker's certificate is valid" in said


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_a_broker_that_wants_a_certificate_of_ours_says_so_and_which_it_does_not_like(
    broker: Callable[..., Mqtt], authority: Authority, version: str
) -> None:
    strict = broker("strict", f"cafile {authority.file}\nrequire_certificate true\ntls_version {version}")
    assert "set mqtt.tls_cert and mqtt.tls_key" in refusal(strict)
    cert, key = authority.sign("client")
    connect(strict.model_copy(update={"tls_cert": cert, "tls_key": key}), client_id="test").close()
    stranger, stranger_key = Authority(authority.directory, "stranger").sign("guest")
    said = refusal(strict, tls_cert=stranger, tls_key=stranger_key)
    assert "the broker does not know the authority that signed mqtt.tls_cert" in said
    expired, expired_key = authority.sign("old", days=-1)
    assert "mqtt.tls_cert has expired: renew it" in refusal(strict, tls_cert=expired, tls_key=expired_key)


def test_tls_on_a_plain_port_is_named(mosquitto: Mosquitto) -> None:
    settings = Mqtt(host="localhost", port=mosquitto.port, tls=True)
    assert "does the broker speak TLS on port" in refusal(settings)


def test_a_port_that_answers_in_another_language_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert "does the broker speak TLS on port" in refusal(Mqtt(port=port, tls=True))


def test_files_of_the_wrong_kind_are_named_each_with_what_is_wrong(
    broker: Callable[..., Mqtt], authority: Authority, tmp_path: Path
) -> None:
    good = broker("files")
    cert, key = authority.sign("client2")
    _, foreign_key = authority.sign("client3")
    der = authority.der(authority.file)
    empty = tmp_path / "empty"
    empty.touch()
    for changed, words in (
        ({"tls_ca": der}, f"mqtt.tls_ca: {der}: holds no certificate in PEM format; it looks like DER"),
        ({"tls_ca": empty}, f"mqtt.tls_ca: {empty}: holds no certificate in PEM format; give a file in PEM"),
        ({"tls_ca": key}, f"mqtt.tls_ca: {key}: holds no certificate in PEM format"),
        ({"tls_ca": tmp_path / "absent"}, "absent: cannot be read: No such file"),
        ({"tls_cert": cert, "tls_key": foreign_key}, f"mqtt.tls_key: {foreign_key}: this key does not belong to"),
        ({"tls_cert": key, "tls_key": key}, f"mqtt.tls_cert: {key}: holds no certificate in PEM format"),
        ({"tls_cert": cert, "tls_key": cert}, f"mqtt.tls_key: {cert}: holds no private key in PEM format"),
        ({"tls_cert": cert, "tls_key": authority.encrypted(key)}, "is encrypted"),
    ):
        assert words in refusal(good, **changed)


def test_a_file_below_a_closed_folder_is_named(
    broker: Callable[..., Mqtt], authority: Authority, tmp_path: Path
) -> None:
    good = broker("closed")
    folder = tmp_path / "closed"
    folder.mkdir()
    shutil.copy(authority.file, folder / "ca.crt")
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        said = refusal(good, tls_ca=folder / "ca.crt")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
    assert "ca.crt: cannot be read: Permission denied: it is below" in said
    assert "which user nobody may not enter; let user nobody enter that folder" in said


def test_a_port_that_says_nothing_holds_nobody_up_for_a_whole_keep_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        said = refusal(Mqtt(port=server.getsockname()[1], tls=True, keepalive_s=60))
        assert time.monotonic() - began < 10
        assert "does the broker speak TLS on port" in said
