"""Files and what can go wrong with them: whole or not there, encodings, and words for every failure."""
