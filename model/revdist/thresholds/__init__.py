"""What a number promises: conformal thresholds, the Pareto tail, outliers among good pictures."""
