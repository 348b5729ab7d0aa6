"""Operators the method needs, each with its reference beside it."""
