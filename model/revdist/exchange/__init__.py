"""Exchanges models with other programs: ONNX models out, checkpoints of the paper's code in."""
