"""The settings of the page, and what its process finds by them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from settings_texts import GOOD, group

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("{host: 0.0.0.0}", "page.host: 0.0.0.0 would carry passwords over the network as they are"),
        ("{host: panel.plant}", "page.host: panel.plant would carry passwords over the network as they are"),
        ("{tls_cert: line.yaml}", "page.tls_cert: needs tls_key"),
        ("{enabled: false, port: 9000}", "page.port: has no effect while the page is off"),
        ("{tls_cert: absent.pem, tls_key: line.yaml}", "is not a file"),
    ],
)
def test_a_page_that_would_be_unsafe_or_has_settings_without_effect_is_refused(
    tmp_path: Path, page: str, complaint: str
) -> None:
    file = tmp_path / "line.yaml"
    (tmp_path / "pictures").mkdir()
    file.write_text(group(f"page: {page}"))
    with pytest.raises(SettingsError) as refused:
        settings_file.load(file)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("page", ["{host: '::1'}", "{host: 0.0.0.0, tls_cert: line.yaml, tls_key: line.yaml}"])
def test_a_page_for_this_machine_alone_or_with_tls_is_taken(tmp_path: Path, page: str) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(group(f"page: {page}"))
    assert settings_file.load_for_page(file).page.enabled


def test_the_page_finds_the_state_of_the_service_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(GOOD)
    settings = settings_file.load_for_page(file)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/rejectd-page/line")
    assert settings_file.page_directory(settings, file) == Path("/var/lib/rejectd-page/line")
    assert settings_file.state_directory_of_service(settings, file) == tmp_path / "state"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert settings_file.page_directory(settings, file) == tmp_path / "page-state"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_key_that_only_the_page_s_user_may_read_does_not_stop_the_line(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    key = tmp_path / "page.key"
    key.write_text("secret")
    key.chmod(0o400)
    file = tmp_path / "line.yaml"
    file.write_text(group("page: {tls_cert: page.key, tls_key: page.key}"))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest-") or folder == tmp_path:
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(SettingsError) as refused:  # of the bundle, which is not there
            settings_file.load(file)
        with pytest.raises(PermissionError):
            key.read_bytes()
    finally:
        os.seteuid(0)
    assert "products.cell.bundle" in str(refused.value)
    assert "page.tls" not in str(refused.value)
