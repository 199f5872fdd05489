"""The settings of one line: each is declared once, here. `settings_file` reads and checks them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import Field

from rejectd.contract.fields import NAME, Amount, Group, Name, Names, Text, setting
from rejectd.contract.messages import Policy

FOLDER: dict[str, Any] = {"pattern": r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", "pattern_help": "a folder's name without /"}
_HOST: dict[str, Any] = {
    "pattern": r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+(%\w+)?",
    "pattern_help": "a name or address alone, without mqtt:// and port",
}

Region: TypeAlias = tuple[Amount, Amount, Amount, Amount]  # x, y, width, height in pixels


class FolderMode(StrEnum):
    """How a folder camera reads its folder."""

    REPLAY = "replay"
    WATCH = "watch"


class Numbering(StrEnum):
    """Where the trigger number of a picture comes from."""

    COUNT = "count"
    NAME = "name"


class Rewrite(StrEnum):
    """What a file is that is written again after its part was shown."""

    SAME_PART = "same_part"
    NEW_PART = "new_part"


class Transport(StrEnum):
    """How RTSP carries the pictures."""

    TCP = "tcp"
    UDP = "udp"


class TimeStamps(StrEnum):
    """What tells when the pictures of a stream were taken."""

    STREAM = "stream"
    ARRIVAL = "arrival"


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Runtime(StrEnum):
    """What computes the model's networks."""

    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """In which numbers the model runs."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Protocol(StrEnum):
    """Version of MQTT; `auto` tries 5 and falls back."""

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


class Commands(StrEnum):
    """From whom commands are taken."""

    AUTO = "auto"
    ANONYMOUS = "anonymous"
    OFF = "off"

    @classmethod
    def _missing_(cls, value: object) -> Commands | None:
        """This was once a truth value."""
        return {"true": cls.AUTO, "yes": cls.AUTO, "on": cls.AUTO, "false": cls.OFF, "no": cls.OFF}.get(str(value))


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Camera(Group):
    """What every camera has."""

    product: str = setting("Name of the product that passes this camera.", example="cell", **NAME)
    deadline_ms: int = setting(
        "Time from exposure until the verdict must be with the broker.", default=1000, unit="ms", low=10, high=600_000
    )
    policy: Policy = setting("What the line should do with an unjudged part.", default=Policy.REJECT)
    region: Region | None = setting(
        "Region of interest; the rest of the picture is cut away.",
        default=None,
        unit="pixels",
        pattern_help="[x, y, width, height]",
    )
    retry_max_s: float = setting(
        "Longest pause between two attempts to reach a lost camera; the first is 0.5 s.",
        default=30.0,
        unit="s",
        low=0.5,
        high=3600,
    )

    @property
    def numbered(self) -> bool:
        """Whether each picture comes with the trigger number of its part."""
        return False

    @property
    def timed(self) -> bool:
        """Whether the time of a picture is that of the exposure, rather than when a recording is shown."""
        return True


class FolderCamera(Camera):
    """Pictures from a folder: a replay at a given rate, or whatever another program puts there."""

    type: ClassVar[str] = "folder"
    path: Path = setting("The folder.", example="pictures")
    mode: FolderMode = setting(
        "`replay` shows what is there in the order of the names, `watch` waits for new files: each shows one part, "
        "seen when its file was complete. Whoever writes must give each picture a name of its own and write it once, "
        "best under a temporary name that is renamed at the end. An empty file shows no part until it is filled; one "
        "that is not within 10 s is a fault. On a share (NFS, SMB), whose clock is not used, a picture is known to be "
        "whole 1 s after it was written: give the deadline that much more, and mount it with short caches (actimeo=0).",
        default=FolderMode.REPLAY,
    )
    rate_hz: float | None = setting(
        "Pictures in a second of a replay; 10 if not given.", default=None, unit="Hz", low=0.01, high=1000
    )
    loop: bool = setting("Start a replay again at its end.", default=False)
    trigger: Numbering = setting(
        "Trigger number of a picture: `count` numbers them since the start, `name` takes the last number of the file's"
        " name.",
        default=Numbering.COUNT,
    )
    max_file_mb: float = setting(
        "Largest picture file that is read; a larger one is a faulty picture. PNG, JPEG, TIFF (not compressed, LZW, "
        "Deflate or PackBits), BMP, WebP, PGM and PPM are taken, with one picture of 8 or 16 bits in a file. "
        "Orientation tags are not followed. A damaged JPEG or PNG is a faulty picture.",
        default=160.0,
        unit="MB",
        low=0.001,
        high=4000,
    )
    max_megapixels: float = setting(
        "Largest picture that is decoded. One of 50 megapixels takes up to a gigabyte of memory and some seconds.",
        default=50.0,
        unit="megapixels",
        low=0.001,
        high=1000,
    )
    bits: int = setting(
        "Bits that count in pictures of 16 bits or more, such as 12 for a 12-bit format, from 8 on; 0: all 16. "
        "It must be what the product was trained with (`revdist train --bits`).",
        default=0,
        low=0,
        high=16,
    )
    subfolders: bool = setting("Watch the folders in the folder as well, also those that come later.", default=False)
    settle_ms: int = setting(
        "With mode watch: a file that is written again within this time after it was closed shows the same part, and "
        "is read after this time. The deadline goes on. Best is a writer that writes each picture under a temporary "
        "name, such as x.tmp, and renames it when it is whole; then 0 is right.",
        default=0,
        unit="ms",
        low=0,
        high=60_000,
    )
    rewrite: Rewrite = setting(
        "With mode watch: what a file is that is written again later. `same_part`: it is counted and not judged, so "
        "each picture needs a name of its own. `new_part`: the next part, for cameras that always write the same name.",
        default=Rewrite.SAME_PART,
    )

    @property
    def numbered(self) -> bool:
        """Whether the names hold the numbers."""
        return self.trigger is Numbering.NAME

    @property
    def timed(self) -> bool:
        """A replay has times of its own making."""
        return self.mode is FolderMode.WATCH


class VideoCamera(Camera):
    """Pictures from a video file or an RTSP stream, through PyAV."""

    type: ClassVar[str] = "video"
    url: Text = setting(
        "File, or rtsp:// address without user and password.", example="rtsp://192.0.2.7/stream", relative=True
    )
    transport: Transport = setting("How RTSP carries the pictures.", default=Transport.TCP)
    timestamps: TimeStamps = setting(
        "What tells when a picture was taken: `stream` its own time stamp, so that a picture which queued anywhere is "
        "seen to be stale; `arrival` the instant at which it came, for cameras whose stamps are no clock. With "
        "`arrival` a picture that queued in the camera or on the network is judged as new, and the verdict of a part "
        "comes late by that delay without a word; what queued in this service is still seen. Sources without a clock, "
        "such as MJPEG over HTTP, always work by arrival; where a camera sends MJPEG without Content-Length, each "
        "picture is complete only when the next one begins, so do not trigger such a camera.",
        default=TimeStamps.STREAM,
    )
    username: Text | None = setting("User of the stream.", default=None)
    password_file: Path | None = setting("File that holds the password of the stream.", default=None)
    open_timeout_s: float = setting("Longest wait for a connection.", default=5.0, unit="s", low=0.1, high=120)
    read_timeout_s: float = setting(
        "Longest wait for the next picture of a stream before it counts as lost.",
        default=2.0,
        unit="s",
        low=0.1,
        high=120,
    )
    frozen_after: int = setting(
        "This many identical pictures in a row mean a frozen camera; 0 switches the check off.",
        default=25,
        unit="pictures",
        low=0,
        high=100_000,
    )
    loop: bool = setting("Start a file again at its end.", default=False)

    @property
    def timed(self) -> bool:
        """A video file has times of its own making."""
        return "://" in self.url and not self.url.startswith("file://")


class V4l2Camera(Camera):
    """Pictures from a Video4Linux device, through OpenCV."""

    type: ClassVar[str] = "v4l2"
    device: Path = setting("The device.", example="/dev/video0")
    width: int | None = setting("Width to ask for.", default=None, unit="pixels", low=16, high=32768)
    height: int | None = setting("Height to ask for.", default=None, unit="pixels", low=16, high=32768)
    rate_hz: float | None = setting("Rate to ask for.", default=None, unit="Hz", low=0.1, high=10_000)
    pixel_format: str | None = setting(
        "Pixel format to ask for.",
        default=None,
        pattern=r"[A-Z0-9]{4}",
        pattern_help="give four capital letters or digits such as MJPG",
    )
    read_timeout_s: float = setting(
        "Longest wait for the next picture before the camera counts as lost.",
        default=5.0,
        unit="s",
        low=0.1,
        high=600,
    )
    frozen_after: int = setting(
        "This many identical pictures in a row mean a frozen camera; 0 switches the check off.",
        default=25,
        unit="pictures",
        low=0,
        high=100_000,
    )


AnyCamera: TypeAlias = FolderCamera | VideoCamera | V4l2Camera


class Product(Group):
    """One product: its bundle and, if wished, a threshold of its own."""

    bundle: Path = setting("The bundle that `revdist train` wrote.", example="bundles/cell")
    threshold: float | None = setting(
        "Score above which a part is rejected, instead of the calibrated one. Without `threshold_for` it must lie "
        "between the lowest held-out good score of the bundle and 1.5 times its calibrated threshold. Reloaded by "
        "SIGHUP.",
        default=None,
        low=0,
        high=1000,
    )
    threshold_for: str | None = setting(
        "Digest of the bundle that `threshold` is meant for, or how it begins. Another bundle is judged by its "
        "calibrated threshold. Reloaded by SIGHUP.",
        default=None,
        pattern=r"[0-9a-f]{8,64}",
        pattern_help="8 to 64 digits of the bundle's digest, as `revdist show` prints it",
    )


class Station(Group):
    """A place where several cameras, or several frames, show one part. Their frames end in one verdict of the part."""

    cameras: Names = setting(
        "Cameras that see the part. Pictures with the same trigger number show one part; of pictures without a number,"
        " those whose exposures lie within `tolerance_ms` of each other.",
        example="[camera2, camera3]",
        pattern_help="names of cameras, such as [left, right]",
    )
    frames: int = setting(
        "Frames of each camera that show one part. Where pictures bring no numbers, all frames of a part must lie"
        " within `tolerance_ms`.",
        default=1,
        unit="frames",
        low=1,
        high=1000,
    )
    tolerance_ms: float | None = setting(
        "The longest time between any two exposures of one part, with all that makes their times differ, such as the"
        " way of a file. Required where pictures without trigger numbers must be put together; at most half of"
        " `pitch_ms`. What a camera misses then costs its own part alone. On a network share, whose times are coarse,"
        " number the pictures instead.",
        default=None,
        unit="ms",
        low=0.1,
        high=300_000,
        example="100",
    )
    pitch_ms: float | None = setting(
        "The shortest time between two parts, by which `tolerance_ms` is checked.",
        default=None,
        unit="ms",
        low=0.2,
        high=600_000,
        example="1000",
    )
    deadline_ms: int = setting(
        "Time from the first exposure of a part that a camera saw until its verdict and those of its frames must be"
        " with the broker.",
        default=1000,
        unit="ms",
        low=10,
        high=600_000,
    )
    policy: Policy = setting("What the line should do with an unjudged part.", default=Policy.REJECT)


class Batch(Group):
    """How frames are put together for the device."""

    max_batch: int = setting("Most frames inspected in one go.", default=8, unit="frames", low=1, high=256)
    max_wait_ms: float = setting("Longest wait for a batch to fill.", default=20.0, unit="ms", low=0, high=10_000)
    queue_per_camera: int = setting(
        "Most frames of one camera that wait; further ones are answered as unjudged (overload).",
        default=32,
        unit="frames",
        low=1,
        high=4096,
    )


class Engine(Group):
    """Where and how the model runs."""

    runtime: Runtime = setting(
        "What computes the networks. `openvino` needs `pip install 'rejectd[openvino]'` and bundles calibrated for it, "
        "and runs on processors alone; it is faster there, most of all with the teacher efficientnet_lite0 and where "
        "other programs use the processors too, but each product has a teacher of its own in memory.",
        default=Runtime.TORCH,
    )
    device: Device = setting("Device; `auto` takes a GPU if there is one.", default=Device.AUTO)
    precision: Precision = setting(
        "Precision of the networks; `auto` takes the fastest that this machine has and that every product's bundle is "
        "calibrated for.",
        default=Precision.AUTO,
    )
    threads: int = setting("Processor threads of the model; 0 means all cores.", default=0, low=0, high=1024)
    teacher_weights: Path | None = setting("Weights of the teacher, where they cannot be downloaded.", default=None)
    hang_s: float = setting(
        "A batch that takes longer means a hung device: systemd's watchdog is no longer fed.",
        default=30.0,
        unit="s",
        low=1,
        high=3600,
    )


class Judging(Group):
    """When a line says that it does not judge its parts."""

    parts: int = setting(
        "How many of its last parts are looked at for each camera.", default=20, unit="parts", low=4, high=10_000
    )
    unjudged_share: float = setting(
        "Share of unjudged ones among these from which on the line's status has it among `problems`, with the likely "
        "cause. From a half on, `judging` is false.",
        default=0.1,
        low=0.001,
        high=1,
    )


class Drift(Group):
    """Whether parts, process, light or lens have changed since the calibration."""

    enabled: bool = setting("Watch for drift.", default=True)
    years_between_false_alarms: float = setting(
        "Mean time between two false alarms of a camera, at the rate at which its parts come. Less finds changes a "
        "few parts sooner.",
        default=1.0,
        unit="years",
        low=0.00001,
        high=1000,
    )
    learning_parts: int = setting(
        "How many of the first parts at a camera show where things lie in its pictures and how often parts are "
        "rejected, since no bundle says that. See that lens and light are right while they pass. More find smaller "
        "changes.",
        default=500,
        unit="parts",
        low=20,
        high=2000,
    )


class Mqtt(Group):
    """The broker."""

    host: str = setting("Name or address of the broker.", default="127.0.0.1", **_HOST)
    port: int = setting("Port of the broker; 8883 is usual with TLS.", default=1883, low=1, high=65535)
    protocol: Protocol = setting("Version of MQTT; `auto` tries 5 and falls back to 3.1.1.", default=Protocol.AUTO)
    client_id: Text | None = setting("Client identifier; `rejectd-<line>` if not given.", default=None)
    username: Text | None = setting("User.", default=None)
    password_file: Path | None = setting("File that holds the password.", default=None)
    operator_username: Text | None = setting(
        "User of `rejectd command`, `replay` and `watch`, who may do at the broker what the service may not.",
        default=None,
    )
    operator_password_file: Path | None = setting(
        "File that holds the password of that user. The service never reads it.", default=None
    )
    tls: bool = setting("Encrypt, and check the broker's certificate.", default=False)
    tls_ca: Path | None = setting("Certificates to trust instead of the system's.", default=None)
    tls_cert: Path | None = setting("Own certificate, for mutual TLS.", default=None)
    tls_key: Path | None = setting("Key of the own certificate.", default=None)
    keepalive_s: int = setting(
        "The broker publishes the last will when it has heard nothing for one and a half times this, and notices: "
        "mosquitto looks every 5 to 6 s.",
        default=5,
        unit="s",
        low=1,
        high=3600,
    )
    heartbeat_s: float = setting("Time between two line status messages.", default=1.0, unit="s", low=0.1, high=3600)
    retry_max_s: float = setting(
        "Longest pause between two attempts to reach the broker; the first is 0.2 s.",
        default=10.0,
        unit="s",
        low=0.2,
        high=3600,
    )
    commands: Commands = setting(
        "Who may change the running line by commands. `auto`: whoever the broker's access list lets, and nobody while "
        "this line itself needs neither user nor certificate there, since the broker would let everybody; `anonymous`: "
        "everybody even so; `off`: nobody, and counts of actuators are not heard either. `true` and `false` are read "
        "as `auto` and `off`.",
        default=Commands.AUTO,
    )
    publish_margin_ms: int = setting(
        "How long before the deadline an unjudged frame is answered, so that the message arrives in time; longer where"
        " the broker was seen to need longer.",
        default=20,
        unit="ms",
        low=1,
        high=60_000,
    )

    @property
    def hears_commands(self) -> bool:
        """Whether commands are taken."""
        identified = self.username is not None or self.tls_cert is not None
        return self.commands is Commands.ANONYMOUS or (self.commands is Commands.AUTO and identified)

    @property
    def no_commands(self) -> str:
        """What to do where no commands are taken."""
        if self.commands is Commands.OFF:
            return "set mqtt.commands: auto"
        return "give it a user or certificate at the broker (mqtt.username, mqtt.tls_cert), or set commands: anonymous"

    @property
    def hears_counts(self) -> bool:
        """Whether counts of actuators are taken. They change nothing."""
        return self.commands is not Commands.OFF


class Metrics(Group):
    """The page that Prometheus scrapes."""

    host: str = setting("Address to listen on; 0.0.0.0 for every network.", default="127.0.0.1", **_HOST)
    port: int = setting("Port to listen on.", default=9108, low=1, high=65535)


class Evidence(Group):
    """Pictures and heat maps of rejected and unjudged parts."""

    enabled: bool = setting("Keep evidence.", default=True)
    directory: Path | None = setting("Where; `evidence` in the state directory if not given.", default=None)
    quota_mb: int = setting("Most disk space; the oldest goes first.", default=2048, unit="MB", low=1, high=10**8)


class Journal(Group):
    """The durable record of verdicts, and of defect events until the broker has them."""

    keep_days: float = setting(
        "How long acknowledged records are kept.", default=14.0, unit="days", low=0.01, high=3650
    )
    max_mb: int = setting(
        "Most disk space; acknowledged records go first, the oldest first.", default=1024, unit="MB", low=1, high=10**7
    )


class Settings(Group):
    """Everything about one line."""

    line: str = setting("Name of the line; part of every topic.", example="line1", **NAME)
    cameras: Annotated[dict[Name, AnyCamera], Field(min_length=1)] = setting("The cameras by name.")
    products: Annotated[dict[Name, Product], Field(min_length=1)] = setting("The products by name.")
    stations: dict[Name, Station] = setting("Places where several frames show one part, by name.", default={})
    batch: Batch = setting("Batches.", default=Batch())
    engine: Engine = setting("Engine.", default=Engine())
    judging: Judging = setting("When a line says that it does not judge its parts.", default=Judging())
    drift: Drift = setting("Whether parts, process, light or lens have changed since the calibration.", default=Drift())
    mqtt: Mqtt = setting("Broker.", default=Mqtt())
    metrics: Metrics = setting("Metrics.", default=Metrics())
    evidence: Evidence = setting("Evidence.", default=Evidence())
    journal: Journal = setting("Journal.", default=Journal())
    memory_mb: int = setting(
        "Most memory for pictures that wait for their verdict, their evidence or somebody to view them. Beyond it "
        "views are given up first, then heat maps, then evidence, each counted; verdicts never.",
        default=512,
        unit="MB",
        low=16,
        high=10**6,
    )
    state_directory: Path | None = setting(
        "Where the service keeps its journal and evidence; systemd's state directory, or `state` beside this file.",
        default=None,
    )
    stop_timeout_s: float = setting(
        "Longest time from SIGTERM to the end; frames in flight get their verdict within it.",
        default=10.0,
        unit="s",
        low=0.5,
        high=600,
    )
    log_level: LogLevel = setting("What is logged. Reloaded by SIGHUP.", default=LogLevel.INFO)
