"""Checks that a camera which sends JPEG pictures over HTTP gives the length of each picture.

Without Content-Length, a picture is known to be whole only when the next one begins. A triggered camera would then be
one part behind: a defect would eject the part that follows.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request

from rejectd.cameras.address import shown
from rejectd.cameras.driver import CameraError
from rejectd.cameras.streams.container import password_of
from rejectd.contract.settings import VideoCamera

_TIMEOUT_S = 3.0
_HEAD_BYTES = 4096  # longer than any head of a part
_PART = re.compile(rb"--[^\r\n]+\r?\n(?P<head>(?:[^\r\n]+\r?\n)*)\r?\n")


def demand_lengths(settings: VideoCamera) -> bool:
    """Open a second connection to the camera, and look for Content-Length in the head of its first picture.

    Returns:
        True if the camera gives lengths; False if that is unknown, for example because it takes no second connection.

    Raises:
        CameraError: if the camera gives no lengths.
    """
    lengths_told = _told(settings)
    if lengths_told is False:
        raise CameraError(
            f"{shown(settings.url)}: it sends pictures without Content-Length: each is whole only when the next one "
            "begins, and would be taken for the next part",
            hint="let the camera send Content-Length, or use its RTSP stream; `timestamps: arrival` takes such pictures"
            " all the same, each one picture late",
        )
    return bool(lengths_told)


def _told(settings: VideoCamera) -> bool | None:
    """Whether the camera gives the length of its first picture; None if that cannot be found out."""
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if settings.username is not None:
        passwords.add_password(None, settings.url, settings.username, password_of(settings) or "")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    try:
        with opener.open(settings.url, timeout=_TIMEOUT_S) as answer:
            if answer.headers.get_content_maintype() != "multipart":
                return None
            head = _PART.search(_beginning(answer))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return None if head is None else re.search(rb"(?im)^content-length:", head["head"]) is not None


def _beginning(answer: http.client.HTTPResponse) -> bytes:
    """The bytes of the answer up to and with the head of its first part."""
    content = b""
    while len(content) < _HEAD_BYTES and not _PART.search(content):
        if not (more := answer.read1(_HEAD_BYTES)):
            break
        content += more
    return content
