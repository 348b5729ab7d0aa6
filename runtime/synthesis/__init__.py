"""How a defect comes into a picture: strokes, candidates, refinement, and who runs when."""
