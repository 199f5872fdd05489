"""The shipped unit on a real systemd: start, reload, hang, crash, stop and wrong settings, as a plant sees them."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from line import digest
from peers import need_peer
from systemd_machine import TARGET, BootError, Machine

import rejectd
import revdist

pytestmark = pytest.mark.system

UNIT = "rejectd@line1.service"
PAGE = "rejectd-page@line1.service"
FILES = Path(__file__).parents[2] / "systemd"
SETTINGS = "/etc/rejectd/line1.yaml"
PASSWORD = "not-for-the-journal"
WATCHDOG_S = 3
MISTAKE = "linse: unknown setting; did you mean line?"
GOOD: dict[str, Any] = {
    "line": "line1",
    "cameras": {
        "left": {"type": "folder", "product": "cell", "path": "/srv/rejectd/left", "rate_hz": 5, "loop": True},
        "right": {"type": "folder", "product": "cell", "path": "/srv/rejectd/nothing", "mode": "watch"},
    },
    "products": {"cell": {"bundle": "/srv/rejectd/cell"}},
    "batch": {"max_batch": 2},
    "engine": {"threads": 1},
    "mqtt": {"username": "line1", "password_file": f"/run/credentials/{UNIT}/broker"},
}
COMMAND = """#!/opt/rejectd/bin/python
import sys
sys.path.insert(0, "/opt/rejectd/src")
from rejectd.cli import main
main()
"""

LOOK = """
import json, re, time, urllib.error, urllib.parse, urllib.request
from http.cookiejar import CookieJar

browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
password = open("/var/lib/rejectd-page/line1/one-time-password").read().strip()


def ask(path, **fields):
    body = urllib.parse.urlencode(fields).encode() if fields else None
    with browser.open("http://127.0.0.1:9180" + path, body, 20) as answer:
        return answer.status, answer.read().decode()


_, form = ask("/login", name="engineer", password=password)
token = re.search('name="csrf" content="([^"]+)"', form)[1]
ask("/password", token=token, password="quiet green lathe", again="quiet green lathe")
captured, until = 0, time.monotonic() + 20
while not captured and time.monotonic() < until:
    captured = sum(count["captured"] for count in json.loads(ask("/api/shift")[1])["counts"])
print(json.dumps({"ready": json.loads(ask("/readyz")[1]), "live": ask("/api/live")[0], "captured": captured}))
"""


class Service:
    """The unit in the machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def configure(self, **changes: Any) -> None:
        """Write the settings, with changes at the top level."""
        self.machine.write(SETTINGS, json.dumps(copy.deepcopy(GOOD) | changes))

    def control(self, verb: str, *options: str, check: bool = True) -> str:
        return self.machine.run("systemctl", verb, *options, UNIT, check=check)

    def show(self) -> dict[str, str]:
        return self.machine.show(UNIT)

    def is_active_again(self, before: dict[str, str]) -> bool:
        now = self.show()
        return now["ActiveState"] == "active" and now["MainPID"] != before["MainPID"]

    def messages(self, text: str, process: str | None = None) -> list[dict[str, Any]]:
        """Journal entries that contain a text, of one process if wished."""
        entries = self.machine.journal(UNIT)
        return [each for each in entries if text in each["MESSAGE"] and process in (None, each.get("_PID"))]

    def times(self, text: str) -> list[float]:
        """When entries that contain a text were written, on the monotonic clock."""
        return [int(each["__MONOTONIC_TIMESTAMP"]) / 1e6 for each in self.messages(text)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, bundle: Path, cells: list[Path]) -> Iterator[Machine]:
    """A machine on which a line engineer has followed systemd/README.md."""
    directory = tmp_path_factory.mktemp("systemd")
    seed = directory / "seed"
    shown = _install(seed)
    pictures = seed / "srv" / "rejectd" / "left"
    pictures.mkdir(parents=True)
    for cell in cells[:5]:
        shutil.copy(cell, pictures)
    try:
        made = Machine(directory, seed, {**shown, "/srv/rejectd/cell": bundle})
    except BootError as error:
        message = f"no systemd can be booted here: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        made.run("ldconfig")
        made.run("systemd-sysusers")
        made.run("mosquitto_passwd", "-c", "-b", "/etc/mosquitto/passwords", "line1", PASSWORD)
        made.run("systemctl", "start", "mosquitto.service")
        yield made
    finally:
        made.close()


@pytest.fixture
def service(machine: Machine) -> Service:
    """The unit, with right settings and running."""
    made = Service(machine)
    made.configure()
    made.control("start")
    return made


def _install(seed: Path) -> dict[str, Path]:
    """Put the unit as shipped, a virtual environment and a broker's settings there. Returns what is to be bound.

    The environment is this one's packages under the shipped path: the service may not look into /root or /tmp.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    bound = {
        f"/opt/rejectd/lib/{version}/site-packages": Path(sysconfig.get_path("purelib")),
        "/opt/rejectd/src/rejectd": Path(rejectd.__file__).parent,
        "/opt/rejectd/src/revdist": Path(revdist.__file__).parent,
    }
    if base.parts[:2] != ("/", "usr"):
        bound["/opt/python"] = base
        base = Path("/opt/python")
        _write(seed / "etc/ld.so.conf.d/rejectd-test.conf", "/opt/python/lib\n")
    _write(seed / "opt/rejectd/pyvenv.cfg", f"home = {base}/bin\n")
    _write(seed / "opt/rejectd/bin/rejectd", COMMAND)
    (seed / "opt/rejectd/bin/rejectd").chmod(0o755)
    (seed / "opt/rejectd/bin/python").symlink_to(base / "bin" / version)
    units = seed / "etc/systemd/system"
    _write(units / "rejectd@.service", (FILES / "rejectd@.service").read_text())
    _write(units / "rejectd-page@.service", (FILES / "rejectd-page@.service").read_text())
    _write(
        units / "rejectd@.service.d/test.conf",
        f"[Service]\nWatchdogSec={WATCHDOG_S}\nLoadCredential=broker:/etc/rejectd/broker.password\n",
    )
    _write(units / f"{TARGET}.d/remember.conf", f"[Unit]\nAfter={UNIT}\n")  # so that `show` knows a stopped one
    _write(seed / "etc/sysusers.d/rejectd.conf", (FILES / "sysusers.conf").read_text())
    _write(seed / "etc/rejectd/broker.password", PASSWORD)
    (seed / "etc/rejectd/broker.password").chmod(0o600)
    settings = "listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/passwords\n"
    _write(seed / "etc/mosquitto/mosquitto.conf", settings)
    return bound


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_unit_is_valid_in_every_line(machine: Machine) -> None:
    path = "/etc/systemd/system/rejectd@.service"
    said = machine.run("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", path, check=False)
    assert said == ""
    assert "multi-user.target.wants" in Service(machine).control("enable", check=False)


def test_the_unit_is_hardened(machine: Machine, tmp_path: Path) -> None:
    need_peer(shutil.which("systemd-analyze"), "systemd")
    shutil.copy(FILES / "rejectd@.service", tmp_path / UNIT)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", tmp_path / UNIT]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


def test_the_page_s_unit_is_valid_and_hardened(machine: Machine, tmp_path: Path) -> None:
    path = "/etc/systemd/system/rejectd-page@.service"
    said = machine.run("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", path, check=False)
    assert said == ""
    shutil.copy(FILES / "rejectd-page@.service", tmp_path / PAGE)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", tmp_path / PAGE]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


def test_the_page_runs_under_a_user_of_its_own_who_reads_the_line_s_state_and_writes_none(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "start", PAGE)
    try:
        assert machine.show(PAGE)["ActiveState"] == "active"
        pid = machine.show(PAGE)["MainPID"]
        assert machine.run("ps", "-o", "user=", "-p", pid).strip() == "rejectd-page"
        password = "/var/lib/rejectd-page/line1/one-time-password"
        assert machine.run("stat", "-c", "%a %U", password).strip() == "600 rejectd-page"
        # as a browser with a cookie would; the machine has no other client
        machine.write("/root/look.py", LOOK)
        told = json.loads(machine.run("/opt/rejectd/bin/python", "/root/look.py"))
        assert told["ready"] == {"state": "running"} or told["ready"]["state"] == "attention", told
        assert told["live"] == 200
        assert told["captured"] > 0, "it reads the journal"
        as_page = ("setpriv", "--reuid=rejectd-page", "--regid=rejectd-page", "--init-groups")
        for path in ("/var/lib/rejectd/line1/journal.sqlite", "/var/lib/rejectd/line1"):
            assert machine.run(*as_page, "test", "-r", path, check=True) == ""
            assert "no" in machine.run(*as_page, "sh", "-c", f"test -w {path} || echo no")
    finally:
        machine.run("systemctl", "stop", PAGE)
    assert machine.show(PAGE)["Result"] == "success"


def test_the_start_is_over_when_the_models_are_loaded_and_not_before(machine: Machine) -> None:
    service = Service(machine)
    service.control("stop", check=False)
    service.configure()
    service.control("start", "--no-block")
    machine.wait(lambda: service.show()["MainPID"] != "0", "the process runs")
    assert service.show()["ActiveState"] == "activating"
    machine.wait(lambda: service.show()["ActiveState"] == "active", "the service is active", 60)
    state = service.show()
    (ready,) = service.messages("ready line=line1", state["MainPID"])
    assert int(ready["__MONOTONIC_TIMESTAMP"]) - 50_000 < int(state["ActiveEnterTimestampMonotonic"])
    assert _account(service)["state"] == "online"


def test_the_service_runs_as_its_user_without_privileges_and_owns_its_state(service: Service) -> None:
    run = service.machine.run
    process = service.show()["MainPID"]
    status = dict(row.split(":\t", 1) for row in run("cat", f"/proc/{process}/status").splitlines())
    user, group = run("id", "-u", "rejectd").strip(), run("id", "-g", "rejectd").strip()
    assert user != "0"
    assert set(status["Uid"].split()) == {user}
    wanted = {run("getent", "group", name).split(":")[2] for name in ("video", "plugdev")}
    assert wanted <= set(status["Groups"].split())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for path in ("/var/lib/rejectd/line1", "/var/cache/rejectd/line1"):
        assert run("stat", "--format=%u:%g %a", path).strip() == f"{user}:{group} 750"
    assert run("stat", "--format=%u", "/var/lib/rejectd/line1/journal.sqlite").strip() == user
    assert run("stat", "--format=%u:%g %a", "/run/rejectd/line1").strip() == f"{user}:{group} 700"
    assert run("find", "/run/rejectd/line1", "-name", "in-flight.bin").strip(), "frames in flight are noted in memory"


def test_what_is_noted_of_frames_in_flight_outlives_a_kill_and_a_stop(service: Service) -> None:
    find = ("find", "/run/rejectd/line1", "-name", "in-flight.bin", "-size", "+1M")
    before = service.machine.run(*find)
    assert before.strip()
    main = service.show()
    service.control("kill", "--signal=KILL", "--kill-whom=main")
    service.machine.wait(lambda: service.is_active_again(main), "systemd starts it again")
    assert service.machine.run(*find) == before
    assert not service.messages("noted on the disk")
    service.control("stop")
    assert service.machine.run("stat", "--format=%a", "/run/rejectd/line1").strip() == "700", "the folder is kept"
    service.control("start")


def test_the_service_has_room_for_files_and_an_end_to_its_memory(service: Service) -> None:
    shown = service.show()
    limits = Path(f"/proc/{shown['MainPID']}/limits")
    files = service.machine.run("grep", "Max open files", str(limits)).split()[3:5]
    assert files == ["8192", "8192"], "the soft limit is raised to the hard one"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0.5 * memory < int(shown["MemoryMax"]) < 0.9 * memory


def test_a_stop_during_the_start_is_clean_and_soon(machine: Machine) -> None:
    service = Service(machine)
    service.control("stop", check=False)
    service.configure()
    service.control("start", "--no-block")
    machine.wait(lambda: service.show()["MainPID"] != "0", "the process runs")
    assert service.show()["ActiveState"] == "activating"
    before = time.monotonic()
    service.control("stop")
    assert time.monotonic() - before < 10
    shown = service.show()
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")


def test_shared_memory_of_others_is_not_seen(service: Service) -> None:
    service.machine.run("touch", "/dev/shm/of-another")
    process = service.show()["MainPID"]
    assert "of-another" not in service.machine.run("ls", f"/proc/{process}/root/dev/shm")


def test_reload_takes_over_a_threshold_in_the_same_process(service: Service, bundle: Path) -> None:
    before = service.show()
    meant = {"threshold": 123.5, "threshold_for": digest(bundle)}
    service.configure(products={"cell": {"bundle": "/srv/rejectd/cell", **meant}})
    service.control("reload")
    service.machine.wait(lambda: service.messages("threshold of cell changed"), "the journal shows the new threshold")
    (line,) = service.messages("threshold of cell changed")
    assert "after=123.5" in line["MESSAGE"]
    after = service.show()
    assert (after["MainPID"], after["NRestarts"]) == (before["MainPID"], before["NRestarts"])


def test_reload_of_a_wrong_file_is_reported_and_changes_nothing(service: Service) -> None:
    before = service.show()
    service.configure(lines="line1")
    service.control("reload")
    service.machine.wait(lambda: service.messages("settings not reloaded"), "the journal shows the mistake")
    (line,) = service.messages("settings not reloaded")
    assert "lines: unknown setting" in line["MESSAGE"]
    assert line["PRIORITY"] == "3"
    service.machine.wait(lambda: service.show()["ActiveState"] == "active", "the service is active")
    assert service.show()["MainPID"] == before["MainPID"]


def test_log_lines_have_their_priority_in_the_journal_and_no_secret(service: Service) -> None:
    process = service.show()["MainPID"]
    service.machine.wait(lambda: service.messages("camera right", process), "the journal shows the lost camera")
    assert {line["PRIORITY"] for line in service.messages("/srv/rejectd/nothing", process)} == {"4"}
    assert {line["PRIORITY"] for line in service.messages("ready line=line1", process)} == {"6"}
    assert not [line for line in service.messages("") if line["MESSAGE"].startswith("<")]
    assert not service.messages(PASSWORD)


def test_a_process_that_hangs_is_aborted_and_started_again(service: Service) -> None:
    before = service.show()
    service.machine.run("kill", "-STOP", before["MainPID"])
    service.machine.wait(lambda: service.is_active_again(before), "the service is active again", 60)
    assert int(service.show()["NRestarts"]) == int(before["NRestarts"]) + 1
    assert service.messages("Watchdog timeout")
    assert service.messages("Fatal Python error: Aborted", before["MainPID"]), "the journal shows where it hung"


def test_a_killed_process_is_started_again(service: Service) -> None:
    before = service.show()
    service.machine.run("kill", "-KILL", before["MainPID"])
    service.machine.wait(lambda: service.is_active_again(before), "the service is active again", 60)
    assert int(service.show()["NRestarts"]) == int(before["NRestarts"]) + 1
    assert _account(service)["state"] == "online"


def test_stop_is_clean_and_every_frame_is_accounted_for(service: Service) -> None:
    process = service.show()["MainPID"]
    service.machine.wait(lambda: _account(service)["captured"] > 0, "pictures are inspected")
    service.control("stop")
    state = service.show()
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("inactive", "success", "0")
    assert int(state["InactiveEnterTimestampMonotonic"]) - int(state["ActiveExitTimestampMonotonic"]) < 15e6
    (stopped,) = service.messages("stopped captured=", process)
    count = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", stopped["MESSAGE"])}
    assert count["captured"] == count["pass"] + count["reject"] + count["unjudged"] > 0
    assert _account(service)["state"] == "offline"


def test_wrong_settings_fail_the_start_say_why_and_are_tried_again_in_peace(machine: Machine) -> None:
    service = Service(machine)
    service.control("stop")
    service.configure(linse="line1")
    assert "failed" in service.control("start", check=False)
    machine.wait(lambda: len(service.messages(MISTAKE)) > 1, "it is tried again")
    assert {line["PRIORITY"] for line in service.messages(MISTAKE)} == {"3"}
    service.configure()
    failed, again = service.times("Failed with result 'exit-code'"), service.times("Scheduled restart job")
    assert min(time for time in again if time > failed[0]) - failed[0] > 2.9, "a try costs processors: not at once"
    machine.wait(lambda: service.show()["ActiveState"] == "active", "it starts by itself once they are right", 60)


def _account(service: Service) -> dict[str, Any]:
    """What the broker keeps as the state of the line."""
    login = ("-u", "line1", "-P", PASSWORD, "-W", "10")
    kept = service.machine.run("mosquitto_sub", *login, "-C", "1", "-t", "rejectd/v1/line1/status")
    status: dict[str, Any] = json.loads(kept)
    return status
