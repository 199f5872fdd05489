"""What is learnt from, and what learns: teachers and their weights; bottleneck, decoder, loss, moving average."""
