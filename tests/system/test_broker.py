"""The service and brokers that demand something: passwords, TLS, an old version of MQTT, or that refuse."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from access import guarded
from certificates import Authority
from line import LINE, ROOT, Line, Subscriber
from peers import Mosquitto, command, free_port, need_peer, run_command, wait_for

pytestmark = pytest.mark.system

SECRET = "correct-horse-battery"


def _with_password(directory: Path, make: Callable[[str], Mosquitto], rules: str = "") -> Mosquitto:
    users = directory / "users"
    made = subprocess.run(["mosquitto_passwd", "-b", "-c", users, "rejectd", SECRET], capture_output=True)
    need_peer(made.returncode == 0, "mosquitto_passwd")
    subprocess.run(["mosquitto_passwd", "-b", users, "plc", "plc"], check=True, capture_output=True)
    for file in (users,):
        file.chmod(0o600)
    return make(f"allow_anonymous false\npassword_file {users}\n{rules}")


def test_a_wrong_password_is_said_and_never_shown(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], cells: list[Path], tmp_path: Path
) -> None:
    broker = _with_password(tmp_path, mosquitto_with)
    password = tmp_path / "password"
    password.write_text("wrong-" + SECRET)
    line.folder("left", cells[:3])
    line.settings["mqtt"] |= {"port": broker.port, "username": "rejectd", "password_file": str(password)}
    checked = run_command("rejectd", "check", line.write())
    assert checked.returncode == 1
    assert "FAIL  broker 127.0.0.1" in checked.stdout
    assert "check mqtt.username, mqtt.password_file" in checked.stdout
    line.start()
    wait_for(lambda: "refuses" in line.log.read_text(), "the refusal is in the log")

    password.write_text(SECRET)  # a rotated password is taken over without a restart
    wait_for(lambda: "broker connected" in line.log.read_text(), "the right password works")
    subscriber = Subscriber(broker.port, credentials=("plc", "plc"))
    wait_for(lambda: subscriber.status().get("state") == "online", "the line is online")
    assert line.stop() == 0
    metrics_and_log = line.log.read_text() + checked.stdout + str(subscriber.messages)
    assert SECRET not in metrics_and_log
    subscriber.close()


def test_a_broker_that_refuses_events_gets_them_when_it_no_longer_does(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], defective_cells: list[Path], tmp_path: Path
) -> None:
    access = tmp_path / "access"
    access.write_text("user plc\ntopic read #\nuser rejectd\ntopic write rejectd/v1/t1/status\n")
    access.chmod(0o600)
    broker = _with_password(tmp_path, mosquitto_with, f"acl_file {access}")
    (tmp_path / "password").write_text(SECRET + "\n")
    line.folder("left", defective_cells[:4], rate_hz=20)
    line.settings["products"]["cell"]["threshold"] = 0.001
    line.settings["mqtt"] |= {"port": broker.port, "username": "rejectd", "password_file": str(tmp_path / "password")}
    subscriber = Subscriber(broker.port, credentials=("plc", "plc"))
    line.start()
    wait_for(lambda: "refuses rejectd/v1/t1/left/defect" in line.log.read_text(), "the refusal is in the log")
    wait_for(lambda: line.total("rejectd_verdicts_unpublished_total") == 4, "refused verdicts are counted")
    access.write_text("user plc\ntopic read #\nuser rejectd\ntopic write rejectd/#\n")
    broker.stop()
    broker.start()
    wait_for(lambda: len(subscriber.of("defect")) == 4, "every defect event arrives in the end", 30)
    assert subscriber.of("verdict") == {}
    wait_for(lambda: line.metrics()["rejectd_outbox_events"] == 0, "the outbox is empty")
    assert line.stop() == 0
    subscriber.close()


def test_tls_with_an_own_authority_and_a_client_certificate(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], cells: list[Path], tmp_path: Path
) -> None:
    _certificates(tmp_path)
    broker = mosquitto_with(
        f"allow_anonymous true\ncafile {tmp_path}/ca.crt\ncertfile {tmp_path}/server.crt\n"
        f"keyfile {tmp_path}/server.key\nrequire_certificate true"
    )
    line.folder("left", cells[:3])
    line.settings["mqtt"] |= {
        "host": "localhost", "port": broker.port, "tls": True, "tls_ca": str(tmp_path / "ca.crt"),
        "tls_cert": str(tmp_path / "client.crt"), "tls_key": str(tmp_path / "client.key"),
    }  # fmt: skip
    line.start()
    wait_for(lambda: "broker connected" in line.log.read_text(), "the line is connected")
    wait_for(lambda: line.total("rejectd_capture_to_publish_seconds_count") == 3, "verdicts are acknowledged")
    assert line.stop() == 0
    del line.settings["mqtt"]["tls_ca"]
    checked = run_command("rejectd", "check", line.write())
    assert checked.returncode == 1
    assert "set mqtt.tls_ca" in checked.stdout


def test_a_broker_whose_certificate_is_another_authority_s_while_the_line_runs_hears_nothing_and_is_named(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], cells: list[Path], tmp_path: Path
) -> None:
    need_peer(shutil.which("openssl"), "openssl")
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        Authority(tmp_path / name, name).sign("server", host="DNS:localhost,IP:127.0.0.1")
    used = tmp_path / "used"
    shutil.copytree(tmp_path / "ours", used)
    for path in (tmp_path, used):
        path.chmod(0o755)
    broker = mosquitto_with(f"allow_anonymous true\ncertfile {used}/server.crt\nkeyfile {used}/server.key")
    line.folder("left", cells[:5], rate_hz=5, loop=True, deadline_ms=5000)
    line.settings["mqtt"] |= {
        "host": "localhost", "port": broker.port, "tls": True, "tls_ca": str(tmp_path / "ours" / "ours.crt"),
    }  # fmt: skip
    line.start()
    published = "rejectd_capture_to_publish_seconds_count"
    wait_for(lambda: line.total(published) > 3, "verdicts are acknowledged")

    broker.stop()
    shutil.copytree(tmp_path / "theirs", used, dirs_exist_ok=True)
    (broker.directory / "mosquitto.log").unlink()
    broker.start()
    wait_for(lambda: line.log.read_text().count("set mqtt.tls_ca") >= 1, "the foreign certificate is named")
    captured = line.total("rejectd_frames_captured_total")
    wait_for(lambda: line.total("rejectd_frames_captured_total") > captured + 10, "the line goes on meanwhile")
    assert f"as rejectd-{LINE}" not in (broker.directory / "mosquitto.log").read_text(), "no client came in"
    assert line.metrics()["rejectd_broker_connected"] == 0
    assert line.log.read_text().count("set mqtt.tls_ca") <= 3, "said, and not at each attempt"

    broker.stop()
    shutil.copytree(tmp_path / "ours", used, dirs_exist_ok=True)
    broker.start()
    before = line.total(published)
    wait_for(lambda: line.total(published) > before + 3, "verdicts are acknowledged again")
    assert line.stop() == 0


def test_a_broker_that_speaks_mqtt_3_only_is_served_in_that_version(line: Line, cells: list[Path]) -> None:
    port = free_port()
    script = (
        "import asyncio, sys\nfrom amqtt.broker import Broker\n"
        f"config = {{'listeners': {{'default': {{'type': 'tcp', 'bind': '127.0.0.1:{port}'}}}}, 'plugins': "
        "{'amqtt.plugins.authentication.AnonymousAuthPlugin': {'allow_anonymous': True}}}\n"
        "async def main():\n    broker = Broker(config)\n    await broker.start()\n    await asyncio.sleep(120)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as broker:
        try:
            line.folder("left", cells[:5], rate_hz=20, deadline_ms=20_000)
            line.settings["mqtt"]["port"] = port
            line.start()
            wait_for(lambda: "broker connected mqtt=3.1.1" in line.log.read_text(), "the line is connected")
            wait_for(lambda: line.total("rejectd_capture_to_publish_seconds_count") == 5, "verdicts are acknowledged")
            assert line.stop() == 0
        finally:
            broker.kill()


def test_no_broker_at_the_start_is_said_once_and_the_line_goes_on(
    line: Line, mosquitto: Mosquitto, cells: list[Path]
) -> None:
    mosquitto.stop()
    line.folder("left", cells[:3], rate_hz=20, deadline_ms=20_000)
    line.start()
    wait_for(lambda: line.total("rejectd_verdicts_total") == 3, "frames are judged")
    assert line.log.read_text().count("Connection refused") == 1
    mosquitto.start()
    wait_for(lambda: line.total("rejectd_capture_to_publish_seconds_count") == 3, "valid verdicts are sent")
    assert line.stop() == 0


def _certificates(directory: Path) -> None:
    """An authority, a server on localhost and a client, with the openssl command."""
    openssl = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    run = {"check": True, "capture_output": True, "cwd": directory}
    subprocess.run([*openssl, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"], **run)
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        subprocess.run([*openssl, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"], **run)
        subprocess.run(
            ["openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", "names", "-out", f"{name}.crt"], **run
        )  # fmt: skip


def test_with_the_documented_access_list_operators_ask_and_watch_and_others_are_told_at_once(
    line: Line, mosquitto_with: Callable[[str], Mosquitto], cells: list[Path], tmp_path: Path
) -> None:
    broker = guarded(mosquitto_with, tmp_path)
    line.folder("left", cells[:5], rate_hz=20, loop=True, deadline_ms=10_000)
    line.settings["mqtt"] |= {
        "port": broker.port, "username": "rejectd", "password_file": str(tmp_path / "rejectd.password")
    }  # fmt: skip
    line.start()
    wait_for(lambda: "broker connected" in line.log.read_text(), "the line is connected")
    began = time.monotonic()
    refused = run_command("rejectd", "command", line.file, "resume")
    assert time.monotonic() - began < 20, "most of it is the start of Python"
    assert refused.returncode == 2
    assert f"does not let user rejectd write {ROOT}/command/resume: Not authorized" in refused.stderr
    login = ("--username", "operator", "--password-file", tmp_path / "operator.password")
    asked = run_command("rejectd", "command", line.file, *login, "resume")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == '{\n "paused": []\n}\n'
    assert _watched(line) == "nothing heard of line t1"
    line.settings["mqtt"] |= {
        "operator_username": "operator", "operator_password_file": str(tmp_path / "operator.password")
    }  # fmt: skip
    line.write()
    assert "is" in _watched(line)
    replayed = run_command("rejectd", "replay", line.file, "--from", 1)
    assert replayed.returncode == 0, replayed.stderr
    assert line.stop() == 0


def _watched(line: Line) -> str:
    """How the first line of `rejectd watch` begins."""
    with subprocess.Popen([command("rejectd"), "watch", str(line.file)], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        first = watching.stdout.readline()
        watching.terminate()
    return first[:24]
