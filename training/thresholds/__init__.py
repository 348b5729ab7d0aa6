"""The threshold of a detector: for a false-alarm rate, and what is found at it."""
