"""Networks: Stable Diffusion with masked cross-attention, loaded, made or saved."""
