"""OpenVINO on processors, and the ONNX graphs that it is given."""
