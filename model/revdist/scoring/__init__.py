"""Maps and numbers: how two sets of features become an anomaly map and a score."""
