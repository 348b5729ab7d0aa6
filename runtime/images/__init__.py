"""Image files in and out at their own bit depth, and the window that a model sees of an image."""
