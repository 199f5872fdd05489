"""Files and their errors: whole writes, encodings, and an explanation of every failure."""
