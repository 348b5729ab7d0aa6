"""Defects made while others train: a dataset of torch, an albumentations and an anomalib hook."""
