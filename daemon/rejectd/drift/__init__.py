"""Whether parts, process, light or lens have changed since the calibration, and which of them."""
