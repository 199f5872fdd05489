"""The networks: teachers and their weights; the student's bottleneck and decoder; loss, moving average."""
