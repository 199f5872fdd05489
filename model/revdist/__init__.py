"""Reverse Distillation for anomaly detection: train, calibrate, evaluate, pack and run one-class models.

Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022 (arXiv 2201.10703).
"""
