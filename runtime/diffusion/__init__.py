"""The method's arithmetic: DDIM's schedule and sampler, their rows and their noise."""
