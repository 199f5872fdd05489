"""Whether a camera that sends JPEG pictures over HTTP says how long each of them is.

Without Content-Length a picture is known to be whole only when the next one begins. A triggered camera would be one
part behind: a defect would eject the part that follows it.
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
    """Ask the camera once more, beside the connection that stands, and look at the head of its first picture.

    Returns:
        Whether it was seen that lengths are told. Not so where the camera takes no second connection, for example.

    Raises:
        CameraError: if they are not told.
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
    """None if it cannot be seen."""
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
    """What comes until the head of the first part is there."""
    content = b""
    while len(content) < _HEAD_BYTES and not _PART.search(content):
        if not (more := answer.read1(_HEAD_BYTES)):
            break
        content += more
    return content
