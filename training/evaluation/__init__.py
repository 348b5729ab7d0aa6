"""What a model can do, measured on images: probes, previews, held-out figures."""
