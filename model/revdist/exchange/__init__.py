"""To and from others: ONNX models out, checkpoints of the paper's code in."""
