"""A procedural generator of inspection pictures: surfaces, and defects with exact masks."""

from .defects import KINDS
from .families import FAMILIES
from .generator import Scene, draw

__all__ = ["FAMILIES", "KINDS", "Scene", "draw"]
