"""How defects are painted, and how many are used: chosen by the gain on held-out examples."""
