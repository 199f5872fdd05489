"""A real browser, Chromium without a window, to open pages as people do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from peers import need_peer


class Browser:
    """Opens pages; `profile` is a folder of its own."""

    def __init__(self, profile: Path) -> None:
        self._path = shutil.which("chromium")
        need_peer(self._path, "chromium")
        self._profile = profile

    def run(self, url: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Open a page with options such as --dump-dom. No name but this machine's address is resolved."""
        command = [
            str(self._path),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={self._profile}",
            *options,
            url,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
