"""The operator's page as a process, a person who uses it by HTTP, and a real browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from line import Line
from peers import command, free_port, need_peer, wait_for

PASSWORD = "quiet green lathe"


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class PageServer:
    """The page of one line, as a process of its own."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.port = free_port()
        self.state = line.directory / "page-state"
        self.log = line.directory / "page.log"
        line.settings["page"] = {"port": self.port}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.line.write()
        with self.log.open("ab") as log:
            arguments = [command("rejectd"), "page", str(self.line.file)]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        wait_for(lambda: self.ended() or "page ready" in self.log.read_text(), "the page is ready", 60)
        assert not self.ended(), self.log.read_text()

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)

    @property
    def one_time_password(self) -> str:
        return (self.state / "one-time-password").read_text().strip()

    def person(self, name: str = "engineer", password: str = "") -> Person:
        """Somebody who has logged in; the first engineer chooses PASSWORD."""
        somebody = Person(self.port)
        if name == "engineer" and (self.state / "one-time-password").exists():
            assert somebody.log_in(name, self.one_time_password).headers["location"] == "/password"
            somebody.choose(PASSWORD)
        else:
            assert somebody.log_in(name, password or PASSWORD).status == 303
        return somebody


class Person:
    """Somebody with a browser without scripts: keeps cookies, sends forms."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.port, self._tls = port, tls
        self.cookies: dict[str, str] = {}

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        if self._tls:
            unchecked = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=30, context=unchecked
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, {**({"Cookie": cookie} if cookie else {}), **(headers or {})})
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0].strip('"')
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lower, response.read())
        finally:
            connection.close()

    def token(self) -> str:
        """The secret that forms of this session show."""
        page = self.ask("/password").text
        return re.findall(r'name="csrf" content="([^"]+)"', page)[0]

    def form(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        content = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask(path, "POST", urlencode(fields).encode(), content)

    def send(self, path: str, body: object, *, token: str | None = None) -> Answer:
        """Send JSON as the page's scripts do."""
        headers = {"Content-Type": "application/json", "X-CSRF-Token": self.token() if token is None else token}
        return self.ask(path, "POST", json.dumps(body).encode(), headers)

    def log_in(self, name: str, password: str) -> Answer:
        return self.form("/login", {"name": name, "password": password})

    def choose(self, password: str) -> Answer:
        return self.form("/password", {"token": self.token(), "password": password, "again": password})


@contextmanager
def chromium() -> Iterator[Any]:
    """A real Chromium, driven by Playwright. One at a time: its event loop is this thread's."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    need_peer(path, "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@contextmanager
def tab_of(browser: Any, person: Person, **options: Any) -> Iterator[Any]:
    """A tab in which this person is logged in. Whatever the browser says on its console is in `said`."""
    context = browser.new_context(base_url=f"http://127.0.0.1:{person.port}", **options)
    context.set_default_timeout(30_000)
    context.add_cookies(
        [
            {"name": name, "value": value, "url": f"http://127.0.0.1:{person.port}"}
            for name, value in person.cookies.items()
        ]
    )
    tab = context.new_page()
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    yield tab
    context.close()


def until(tab: Any, expression: str) -> None:
    """Wait until an expression is true in a tab; the page's own policy forbids the browser to wait for it there."""
    wait_for(lambda: tab.evaluate(expression), f"{expression} on {tab.url}, which shows {tab.inner_text('main')}", 30)


def axe_script(folder: Path) -> str:
    """The accessibility checker axe-core, from npm."""
    npm = shutil.which("npm")
    need_peer(npm, "npm")
    install = [str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "axe-core@4.10.3"]
    subprocess.run(install, cwd=folder, check=True, timeout=200, capture_output=True)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()
