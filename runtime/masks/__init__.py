"""Masks: read, cut into pieces, drawn, transplanted, placed where a defect may be."""
