"""Builds the AsyncAPI 3 document of the line's topics, as the service sees them: it sends what the line receives."""

from __future__ import annotations

from typing import Any, TypeAlias

from rejectd.contract import payloads, requests, schemas
from rejectd.contract.bodies import MESSAGES
from rejectd.contract.json_schema import sentence
from rejectd.contract.messages import GOLDEN, Cause, Decision
from rejectd.contract.requests import REQUESTS
from rejectd.contract.settings import Mqtt

Node: TypeAlias = dict[str, Any]

_LINE, _CAMERA, _DECISION, _COMMAND = "{line}", "{camera}", "{decision}", "{command}"
_PARAMETERS: Node = {
    "line": {"description": "Name of the line."},
    "camera": {"description": "Name of the camera, or of the station where several frames show one part."},
    "decision": {"description": "How the frame or part ended.", "enum": [str(decision) for decision in Decision]},
    "command": {"description": "What to do.", "enum": list(REQUESTS)},
}
_BINDING = "0.2.0"  # version of the MQTT binding
_PLAIN: Node = {"retain": False}
_RETAINED: Node = {"retain": True}
_EXPIRING: Node = {
    "retain": False,
    "messageExpiryInterval": {
        "type": "integer",
        "minimum": 1,
        "description": "Whole seconds that are left until the deadline, rounded down, but at least 1; so look at"
        " valid_until too.",
    },
}
_INFO: Node = {
    "title": "rejectd",
    "version": "1.0.0",
    "description": "Verdicts, states, events and commands of one production line. How to build a gateway on them:"
    " README.md beside this file.\n\nMQTT 5; where a broker speaks 3.1.1 alone there is no message expiry, and answers"
    " go to the answer topic. Bodies are JSON. The schemas say what this version sends; within v1 fields may be added,"
    " so ignore what you do not know.",
    "license": {"name": "Apache-2.0"},
}


def document() -> Node:
    """The whole document; its schemas are those of the files in `schemas/` beside it, but for their heads."""
    return {
        "asyncapi": "3.0.0",
        "info": _INFO,
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": _channels(),
        "operations": _operations(),
        "components": {"parameters": _PARAMETERS, "messages": _messages(), "schemas": schemas.components()},
    }


def _server() -> Node:
    will = payloads.encode(payloads.will_payload("line1", "RUN")).decode()
    last_will = {"topic": payloads.line_topic("line1"), "qos": 1, "message": will, "retain": True}
    binding = {"clientId": "rejectd-line1", "keepAlive": Mqtt().keepalive_s, "lastWill": last_will}
    return {
        "host": f"broker.example:{Mqtt().port}",
        "protocol": "mqtt",
        "protocolVersion": "5",
        "description": "The plant's broker. Its access list says who may read and write what.",
        "bindings": {"mqtt": {**binding, "bindingVersion": _BINDING}},
    }


def _channels() -> Node:
    """Every topic. The last one stands for any response topic that a request names."""
    commands = {f"{command}Request": f"request-{command}" for command in REQUESTS}
    return {
        "lineStatus": _channel(payloads.line_topic(_LINE), line="line"),
        "cameraStatus": _channel(payloads.camera_topic(_LINE, _CAMERA), camera="camera"),
        "verdict": _channel(_verdict_topic(_CAMERA), verdict="verdict"),
        "knownVerdict": _channel(_verdict_topic(GOLDEN), verdict="verdict"),
        "defect": _channel(payloads.defect_topic(_LINE, _CAMERA), defect="defect"),
        "command": _channel(payloads.command_topic(_LINE, _COMMAND), **commands),
        "answer": _channel(payloads.answer_topic(_LINE), answer="answer"),
        "actuator": _channel(payloads.actuator_topic(_LINE, _CAMERA), count="actuator"),
        "response": {
            "address": None,
            "description": "The response topic that a request names: below the answer topic, or outside of rejectd/.",
            "messages": {"answer": _component("messages", "answer")},
        },
    }


def _verdict_topic(camera: str) -> str:
    """The topic of verdicts, with a placeholder for the decision."""
    return payloads.verdict_topic(_LINE, camera, Decision.PASS).removesuffix(Decision.PASS) + _DECISION


def _channel(address: str, **messages: str) -> Node:
    """A topic. `messages`: by its name in this channel, the component that a message is."""
    used = {name: _component("parameters", name) for name in _PARAMETERS if f"{{{name}}}" in address}
    return {
        "address": address,
        "parameters": used,
        "messages": {name: _component("messages", message) for name, message in messages.items()},
    }


def _messages() -> Node:
    """Every message, by the name of its schema."""
    plain = {name: _message(name) for name in MESSAGES}
    return plain | {f"request-{command}": _request(command) for command in REQUESTS} | {"answer": _answer()}


def _message(schema: str) -> Node:
    return {"name": schema, "payload": _component("schemas", schema)}


def _component(section: str, name: str) -> Node:
    return {"$ref": f"#/components/{section}/{name}"}


def _request(command: str) -> Node:
    """The message of a request. AsyncAPI calls MQTT 5 properties headers."""
    topic = {"type": "string", "description": "MQTT 5 response topic: where the answer goes, else to the answer topic."}
    return {
        **_message(f"request-{command}"),
        "headers": {"type": "object", "properties": {"responseTopic": topic}},
        "correlationId": {"location": "$message.payload#/request_id", "description": "Or the MQTT 5 correlation data."},
        "bindings": {
            "mqtt": {"responseTopic": topic, "correlationData": {"type": "string"}, "bindingVersion": _BINDING}
        },
    }


def _answer() -> Node:
    about = {"type": "string", "description": "The one of the request."}
    return {**_message("answer"), "bindings": {"mqtt": {"correlationData": about, "bindingVersion": _BINDING}}}


def _operations() -> Node:
    causes = ", ".join(Cause)
    commands = {command: _command(command) for command in REQUESTS}
    return {
        "publishLineStatus": _send("lineStatus", "At birth, once a second, and at the end.", _RETAINED),
        "publishCameraStatus": _send("cameraStatus", "With each change, and after a reconnect.", _RETAINED),
        "publishVerdict": _send(
            "verdict", f"Once for each frame or part, before its deadline or never. Unjudged: {causes}.", _EXPIRING
        ),
        "publishKnownVerdict": _send(
            "knownVerdict", "The same for known pictures, where no ejector listens. They come by command.", _EXPIRING
        ),
        "publishDefect": _send("defect", "Each reject and unjudged part, until the broker has it; in order, numbered."),
        "publishAnswer": _send("answer", "The answer to a request that names no response topic."),
        "countRejected": _receive("actuator", "Counts are kept, and compared by `rejectd account`."),
        **commands,
    }


def _send(channel: str, summary: str, binding: Node = _PLAIN) -> Node:
    bindings = {"mqtt": {"qos": 1, **binding, "bindingVersion": _BINDING}}
    return {"action": "send", "channel": _ref(channel), "summary": summary, "bindings": bindings}


def _receive(channel: str, summary: str) -> Node:
    bindings = {"mqtt": {"qos": 1, "bindingVersion": _BINDING}}
    return {"action": "receive", "channel": _ref(channel), "summary": summary, "bindings": bindings}


def _command(command: str) -> Node:
    """A request and its answer. A retained request would be carried out at each reconnect, so it is refused."""
    where = {"location": "$message.header#/responseTopic", "description": "Without one, the answer topic."}
    return {
        **_receive("command", sentence(REQUESTS[command])),
        "description": f"Not retained, {requests.LARGEST_BYTES} bytes at most.",
        "messages": [_ref("command", f"{command}Request")],
        "reply": {"address": where, "channel": _ref("response"), "messages": [_ref("response", "answer")]},
    }


def _ref(channel: str, message: str = "") -> Node:
    return {"$ref": f"#/channels/{channel}" + (f"/messages/{message}" if message else "")}
