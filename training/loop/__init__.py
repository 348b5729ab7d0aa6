"""Training itself: objectives, the loop, checkpoints, and the directory of a run."""
