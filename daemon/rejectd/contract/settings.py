"""The settings of one line, each declared once: cameras in camera_settings, the broker in mqtt_settings, others here.

`settings_file` reads and checks them.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from rejectd.contract.camera_settings import (
    Camera,
    FolderCamera,
    FolderMode,
    Numbering,
    Region,
    RegionCamera,
    Rewrite,
    TimeStamps,
    Transport,
    V4l2Camera,
    VideoCamera,
)
from rejectd.contract.fields import HOST, NAME, Group, Name, Names, Text, setting
from rejectd.contract.genicam_settings import AravisCamera, GenicamCamera, GentlCamera, PylonCamera
from rejectd.contract.messages import Policy
from rejectd.contract.mqtt_settings import Commands, Mqtt, Protocol

AnyCamera: TypeAlias = FolderCamera | VideoCamera | V4l2Camera | AravisCamera | PylonCamera | GentlCamera
ListedCamera: TypeAlias = AnyCamera | RegionCamera


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Runtime(StrEnum):
    """What computes the model's networks."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """In which numbers the model runs."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Language(StrEnum):
    """In which language the page is shown."""

    ENGLISH = "en"
    GERMAN = "de"
    CHINESE = "zh"


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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
        "What computes the networks. `auto` takes `torch` on a GPU; on a processor `openvino`, or `torch`, with a "
        "warning, where a product's bundle is not calibrated for `openvino`. That is steadier where other programs use "
        "the processors too, but each product has a teacher of its own in memory, where `torch` has one for all.",
        default=Runtime.AUTO,
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


class Metrics(Group):
    """The page that Prometheus scrapes."""

    host: str = setting("Address to listen on; 0.0.0.0 for every network.", default="127.0.0.1", **HOST)
    port: int = setting("Port to listen on.", default=9108, low=1, high=65535)


class Otel(Group):
    """OpenTelemetry: metrics, and a trace for each reject, to a collector."""

    endpoint: str | None = setting(
        "Address of an OTLP collector that takes HTTP, such as http://127.0.0.1:4318; nothing is sent without. Needs "
        "`pip install 'rejectd[otel]'`. Verdicts never wait for it.",
        default=None,
        pattern=r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
        pattern_help="http:// or https://, host and port, without user and password",
    )
    interval_s: float = setting("Time between two sendings of metrics.", default=15.0, unit="s", low=1, high=3600)


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


class Page(Group):
    """The operator's page, `rejectd page`: a process of its own, which asks the service over a local socket."""

    enabled: bool = setting("Let the page see this line and command it.", default=True)
    user: Text = setting(
        "System user of the page's process, who may use the socket beside root and the service's own user.",
        default="rejectd-page",
    )
    host: str = setting(
        "Address to listen on; one that other machines reach needs `tls_cert`, since passwords cross the network.",
        default="127.0.0.1",
        **HOST,
    )
    port: int = setting("Port to listen on.", default=9180, low=1, high=65535)
    tls_cert: Path | None = setting("Certificate of the page, which then speaks HTTPS alone.", default=None)
    tls_key: Path | None = setting("Key of that certificate.", default=None)
    language: Language = setting("Language, where a browser asks for none of ours.", default=Language.ENGLISH)
    session_hours: float = setting(
        "After so long without a request a person must log in again. A live page that is shown keeps asking.",
        default=12.0,
        unit="h",
        low=0.05,
        high=720,
    )
    state_directory: Path | None = setting(
        "Where the page keeps users and labels; systemd's state directory, or `page-state` beside this file.",
        default=None,
    )


class Settings(Group):
    """Everything about one line."""

    line: str = setting("Name of the line; part of every topic.", example="line1", **NAME)
    cameras: Annotated[dict[Name, ListedCamera], Field(min_length=1)] = setting("The cameras by name.")
    products: Annotated[dict[Name, Product], Field(min_length=1)] = setting("The products by name.")
    stations: dict[Name, Station] = setting("Places where several frames show one part, by name.", default={})
    batch: Batch = setting("Batches.", default=Batch())
    engine: Engine = setting("Engine.", default=Engine())
    judging: Judging = setting("When a line says that it does not judge its parts.", default=Judging())
    drift: Drift = setting("Whether parts, process, light or lens have changed since the calibration.", default=Drift())
    mqtt: Mqtt = setting("Broker.", default=Mqtt())
    metrics: Metrics = setting("Metrics.", default=Metrics())
    otel: Otel = setting("OpenTelemetry.", default=Otel())
    evidence: Evidence = setting("Evidence.", default=Evidence())
    journal: Journal = setting("Journal.", default=Journal())
    page: Page = setting("Page.", default=Page())
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


__all__ = [
    "AnyCamera",
    "AravisCamera",
    "Batch",
    "Camera",
    "Commands",
    "Device",
    "Drift",
    "Engine",
    "Evidence",
    "FolderCamera",
    "FolderMode",
    "GenicamCamera",
    "GentlCamera",
    "Journal",
    "Judging",
    "ListedCamera",
    "LogLevel",
    "Metrics",
    "Mqtt",
    "Numbering",
    "Precision",
    "Product",
    "Protocol",
    "PylonCamera",
    "Region",
    "RegionCamera",
    "Rewrite",
    "Runtime",
    "Settings",
    "Station",
    "TimeStamps",
    "Transport",
    "V4l2Camera",
    "VideoCamera",
]
