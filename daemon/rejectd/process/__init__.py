"""The process among others: signals, log, systemd, the port for Prometheus."""
