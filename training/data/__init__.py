"""Defects to learn from: layouts of datasets, splits, samples, crops."""
