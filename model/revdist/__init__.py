"""Reverse Distillation for anomaly detection: train, calibrate, evaluate, pack and run one-class models.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022 (arXiv 2201.10703).
"""

import os

# So often a thread of a team looks whether there is an operation before it sleeps: for half a millisecond, which is
# longer than the pauses within a network. By default it is 5 ms, on a processor that others need by then. libgomp reads
# it when torch is imported; who has set it keeps it.
os.environ.setdefault("GOMP_SPINCOUNT", "40000")
