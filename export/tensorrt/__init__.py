"""Experimental: engines for TensorRT and TensorRT-RTX, built without a card, never run on one."""
