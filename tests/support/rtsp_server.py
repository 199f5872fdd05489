"""A camera for tests: an RTSP server that paints its pictures itself and writes into each when it was taken.

Run by the system's Python, which has GStreamer: `rtsp_server.py PORT h264|jpeg|split [USER PASSWORD]`. A picture is
320 x 240: on top 32 cells of 10 x 40 pixels, white for a 1, the time.monotonic_ns() of the exposure in ms, highest bit
first; below it red to the left and blue to the right; at the bottom a white block that moves on a black ground.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, RATE_HZ = 320, 240, 20
_H264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=1000"
ENCODERS = {
    "h264": f"{_H264} sliced-threads=false threads=1 ! rtph264pay config-interval=-1",
    "split": f"{_H264} sliced-threads=true threads=2 ! rtph264pay config-interval=-1",  # key pictures come in two parts
    "jpeg": "jpegenc quality=90 ! rtpjpegpay",
}


def paint(number: int) -> bytes:
    taken_ms = (time.monotonic_ns() // 1_000_000) & 0xFFFFFFFF
    code = b"".join(b"\xff\xff\xff" * 10 if taken_ms >> bit & 1 else b"\0\0\0" * 10 for bit in reversed(range(32)))
    colours = b"\xff\0\0" * (WIDTH // 2) + b"\0\0\xff" * (WIDTH // 2)
    left = 8 * number % (WIDTH - 40)
    moving = b"\0\0\0" * left + b"\xff\xff\xff" * 40 + b"\0\0\0" * (WIDTH - 40 - left)
    return code * 40 + colours * 160 + moving * 40


def configure(_factory: object, media: object) -> None:
    source = media.get_element().get_child_by_name("camera")
    numbers = iter(range(1 << 62))

    def push() -> bool:
        buffer = Gst.Buffer.new_wrapped(paint(next(numbers)))
        return source.emit("push-buffer", buffer) is Gst.FlowReturn.OK

    GLib.timeout_add(1000 // RATE_HZ, push)


def main(port: str, codec: str, *login: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    caps = f"video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate={RATE_HZ}/1"
    factory.set_launch(
        f"( appsrc name=camera is-live=true do-timestamp=true format=time caps={caps} "
        "! videoconvert ! video/x-raw,format=I420 "
        f"! {ENCODERS[codec]} name=pay0 pt=96 )"
    )
    factory.connect("media-configure", configure)
    if login:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        server.set_auth(auth)
        allowed = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        factory.add_role_from_structure(Gst.Structure.new_from_string(allowed))
    server.get_mount_points().add_factory("/camera", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is not free")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
