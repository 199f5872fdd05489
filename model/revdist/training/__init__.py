"""The loop, its feature cache and checkpoints; calibration with held-out pictures; packing into a bundle."""
