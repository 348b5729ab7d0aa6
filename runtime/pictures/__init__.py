"""Pictures and masks: read, drawn, placed, found again in another picture."""
