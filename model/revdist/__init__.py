"""Reverse Distillation for anomaly detection: train, calibrate, evaluate, pack and run one-class models.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022 (arXiv 2201.10703).

Read in this order; each room knows only those before it:

files, errors     what can go wrong with files, in words
data              pictures, lots, augmentation, painted defects, tiles
networks          the teacher, which is frozen, and the parts of the student
thresholds        from held-out scores to a threshold and what it promises
recipe            everything that determines a training
scoring           two sets of features become an anomaly map and a score
engines           one teacher and many students, run fast on a device
bundle            what a training leaves: weights, manifest, calibrations, golden pictures
evaluation        how well good and defective parts are told apart
training          the loop, calibration, packing into a bundle
report, exchange  a page about a bundle; ONNX out, the paper's checkpoints in
bench             how fast, beside others
cli               the command

daemon/README.md walks from a folder of pictures to a bundle, and through an engine with a batch.
"""

import os

# So often a thread of a team looks whether there is an operation before it sleeps: for half a millisecond, which is
# longer than the pauses within a network. By default it is 5 ms, on a processor that others need by then. libgomp reads
# it when torch is imported; who has set it keeps it.
os.environ.setdefault("GOMP_SPINCOUNT", "40000")
