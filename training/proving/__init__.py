"""Proof whether made defects help a detector on real ones: arms, figures, certificate."""
