"""Programs that stay open around the runtime: they add no method of their own to it."""
