"""What a model makes, measured: probes, previews, and figures beside held-out real defects."""
