"""A whole line for tests: the real service as a process, an independent subscriber, and the metrics page."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from contract import is_from_service, validate
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from peers import command, free_port, wait_for
from prometheus_client.parser import text_string_to_metric_families

LINE = "t1"
ROOT = f"rejectd/v1/{LINE}"


def digest(bundle: Path) -> str:
    """The digest of a bundle, as its settings and messages name it."""
    return hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()


class Subscriber:
    """Counts what arrives, as a PLC gateway would: persistent session, QoS 1, no code of the service's.

    Every message is held to the schemas of `config/mqtt`, by `close`, so that it costs the line no time.
    """

    def __init__(self, port: int, *, persistent: bool = True, credentials: tuple[str, str] | None = None) -> None:
        self.messages: list[tuple[float, str, dict[str, Any]]] = []  # (received, topic, payload)
        self._bodies: list[tuple[str, bytes]] = []
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"subscriber-{os.getpid()}-{port}", protocol=MQTTProtocolVersion.MQTTv5
        )
        if credentials:
            self._client.username_pw_set(*credentials)
        self._client.reconnect_delay_set(1, 1)
        self._subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(f"{ROOT}/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 600 if persistent else 0
        self._client.connect("127.0.0.1", port, keepalive=5, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _take(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if is_from_service(message.topic):
            self._bodies.append((message.topic, message.payload))
        elif "/actuator/" not in message.topic:
            return
        self.messages.append((time.time(), message.topic, json.loads(message.payload)))

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Payloads of `verdict` or `defect` messages by event."""
        return {
            payload["event_id"]: payload
            for _, topic, payload in list(self.messages)
            if f"/{kind}" in topic.removeprefix(ROOT)
        }

    def status(self, camera: str | None = None) -> dict[str, Any]:
        """The latest status of the line or of a camera."""
        topic = f"{ROOT}/{camera}/status" if camera else f"{ROOT}/status"
        return next((payload for _, where, payload in reversed(self.messages) if where == topic), {})

    def states(self, camera: str) -> list[str]:
        """Every state of a camera in order."""
        return [payload["state"] for _, topic, payload in self.messages if topic == f"{ROOT}/{camera}/status"]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        for topic, body in self._bodies:
            validate(topic, body)


class Operator:
    """Gives commands by MQTT 5 request and response, with no code of the service's."""

    def __init__(self, port: int, *, line: str = LINE) -> None:
        self.root = f"rejectd/v1/{line}"
        self.answers: list[tuple[str, bytes | None, dict[str, Any]]] = []  # topic, correlation, body
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"operator-{os.getpid()}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self.root}/answer/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port, keepalive=5)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _take(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        validate(message.topic, message.payload)
        correlation = getattr(message.properties, "CorrelationData", None)
        self.answers.append((message.topic, correlation, json.loads(message.payload)))

    def send(
        self,
        command: str,
        body: object = None,
        *,
        answer_to: str | None = "mine",
        raw: bytes | None = None,
        retain: bool = False,
    ) -> bytes:
        """Send a request; returns what the answer will carry."""
        correlation = os.urandom(8)
        properties = Properties(PacketTypes.PUBLISH)
        if answer_to:
            properties.ResponseTopic = f"{self.root}/answer/mine" if answer_to == "mine" else answer_to
            properties.CorrelationData = correlation
        payload = json.dumps(body or {}).encode() if raw is None else raw
        self._client.publish(f"{self.root}/command/{command}", payload, 1, retain, properties).wait_for_publish(10)
        return correlation

    def ask(self, command: str, timeout_s: float = 60, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        correlation = self.send(command, request)
        found: list[dict[str, Any]] = []

        def came() -> bool:
            found.extend(body for _, sent, body in self.answers if sent == correlation)
            return bool(found)

        wait_for(came, f"the answer to {command} {request}", timeout_s)
        return found[0]

    def publish(self, below: str, payload: object) -> None:
        """Publish anything below the line's topic."""
        self._client.publish(f"{self.root}/{below}", json.dumps(payload), 1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Line:
    """The service of one line in a folder of its own."""

    def __init__(self, directory: Path, bundle: Path, broker_port: int) -> None:
        self.directory = directory
        self.bundle = bundle
        self.metrics_port = free_port()
        self.settings: dict[str, Any] = {
            "line": LINE,
            "cameras": {},
            "products": {"cell": {"bundle": str(bundle)}},
            "mqtt": {"port": broker_port, "heartbeat_s": 0.2, "retry_max_s": 0.5, "commands": "anonymous"},
            "metrics": {"port": self.metrics_port},
        }
        self.file = directory / "line.yaml"
        self.log = directory / "service.log"
        self.process: subprocess.Popen[bytes] | None = None

    def folder(self, name: str, pictures: list[Path], **settings: Any) -> None:
        """Add a camera that shows these pictures."""
        path = self.directory / "pictures" / name
        path.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copy(picture, path / f"{number:04}{picture.suffix}")
        self.settings["cameras"][name] = {"type": "folder", "product": "cell", "path": str(path), **settings}

    def write(self) -> Path:
        """Write the settings. Whatever threshold a test wishes is meant for the bundle that it is set beside."""
        for product in self.settings["products"].values():
            if product.get("threshold") is not None:
                product.setdefault("threshold_for", digest(Path(product["bundle"])))
        for camera in self.settings[
            "cameras"
        ].values():  # most pictures of tests are of one colour, or of another shape
            camera.setdefault("image_health", False)
        self.file.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML
        return self.file

    def start(self, *options: str, program: list[str] | None = None) -> None:
        self.write()
        with self.log.open("ab") as log:
            arguments = [*(program or [command("rejectd")]), "run", str(self.file), *options]
            self.process = subprocess.Popen(arguments, stderr=log, stdout=log)
        wait_for(lambda: self.ended() or "ready line=" in self.log.read_text(), "the service is ready", 60)

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=timeout_s)

    def wait(self, timeout_s: float = 60) -> int:
        assert self.process
        return self.process.wait(timeout=timeout_s)

    def metrics(self) -> dict[str, float]:
        """All samples: `name{label=value,...}` to value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        samples = {}
        for family in families:
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def journal(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the journal."""
        db = sqlite3.connect(f"file:{self.directory}/state/journal.sqlite?mode=ro", uri=True)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()
