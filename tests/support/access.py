"""Brokers that allow some things to some users."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from line import LINE, ROOT
from peers import Mosquitto, need_peer

_README = Path(__file__).parents[2] / "config/mqtt/README.md"


def documented_access() -> str:
    """The access list of the page for programmers of gateways, for the line of the tests."""
    block = re.search(r"```\n(user rejectd\n.*?)```", _README.read_text(), re.DOTALL)
    assert block
    return block[1].replace("/line1/", f"/{LINE}/")


def guarded(make: Callable[[str], Mosquitto], directory: Path, *, access: str = "") -> Mosquitto:
    """A broker with that access list, or another. Each user's password is the user's name, also in a file of it."""
    users, rules = directory / "users", directory / "access"
    rules.write_text(access or documented_access())
    for user in ("rejectd", "plc", "operator"):
        create = [] if users.exists() else ["-c"]
        made = subprocess.run(["mosquitto_passwd", "-b", *create, users, user, user], capture_output=True)
        need_peer(made.returncode == 0, "mosquitto_passwd")
        (directory / f"{user}.password").write_text(user + "\n")
    for file in (users, rules):
        file.chmod(0o644)
    return make(f"allow_anonymous false\npassword_file {users}\nacl_file {rules}")


def no_subscriptions(directory: Path, *patterns: str) -> str:
    """Settings of a broker that takes and hands out everything, but allows no subscription to these patterns."""
    plugin = next(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"), None)
    need_peer(plugin, "mosquitto's dynamic security plugin")
    rules = [
        {"acltype": "publishClientSend", "topic": "#", "allow": True},
        {"acltype": "publishClientReceive", "topic": "#", "allow": True},
        *({"acltype": "subscribePattern", "topic": f"{ROOT}/{it}", "allow": False, "priority": 1} for it in patterns),
        {"acltype": "subscribePattern", "topic": "#", "allow": True},
    ]
    everything = {
        "defaultACLAccess": {"publishClientSend": False, "publishClientReceive": False, "subscribe": False},
        "anonymousGroup": "all",
        "clients": [],
        "groups": [{"groupname": "all", "roles": [{"rolename": "all"}]}],
        "roles": [{"rolename": "all", "acls": rules}],
    }
    file = directory / "dynamic-security.json"
    file.write_text(json.dumps(everything))
    return f"allow_anonymous true\nplugin {plugin}\nplugin_opt_config_file {file}"
