"""What is on the disk or waits for it: journal and outbox, in-flight file, evidence. One thread owns the disk."""
