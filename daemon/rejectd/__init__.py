"""A service that watches a production line and tells it, in time, which parts to reject.

Read in this order; each room knows only those before it:

contract                    settings, requests and messages, declared once
process, metrics, passwords the process among others: signals, log, systemd; figures for Prometheus; password files
ledger, decision            each frame has one end; a score becomes a verdict
cameras, batching           where frames come from, and which are judged together
inspector                   owns the device; the only file that knows networks and bundles
pairing, stations, judging  frames of one part, and whether parts are judged at all
drift                       whether parts, process, light or lens have changed
telemetry                   metrics and traces for OpenTelemetry
storage, mqtt               what stays on the disk, and what leaves for the broker
pipeline                    a frame's life, from all of these
control                     what people ask of a running line
line, service               one line, wired; its threads
cli                         the command

README.md in the folder above walks from the camera to MQTT.
"""

import revdist  # noqa: F401  # before torch, which reads what is set there
