"""Turn two sets of features into an anomaly map and a score."""
