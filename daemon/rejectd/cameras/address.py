"""Addresses of video sources, with and without their secrets."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit


def is_stream(url: str) -> bool:
    """Whether the address is a live source; anything else is a file."""
    return "://" in url and not url.startswith("file://")


def shown(url: str) -> str:
    """The address as people and logs may see it: without user, password and query, which may hold a token."""
    if not is_stream(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def with_login(url: str, username: str | None, password: str | None) -> str:
    """The address that opens the source. Never log it."""
    if username is None or not is_stream(url):
        return url
    parts = urlsplit(url)
    login = quote(username, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))
