"""Thresholds and what they promise: conformal prediction, the Pareto tail, outliers among good pictures."""
