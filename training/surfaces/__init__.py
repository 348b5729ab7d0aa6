"""A procedural generator of inspection images: surfaces, and defects with exact masks."""

from .defects import DEFECT_TYPES
from .families import FAMILIES
from .generator import Scene, draw

__all__ = ["DEFECT_TYPES", "FAMILIES", "Scene", "draw"]
