"""Commands of training, one a file; no logic."""
