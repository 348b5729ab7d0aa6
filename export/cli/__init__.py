"""Commands of export, one a file; no logic."""
