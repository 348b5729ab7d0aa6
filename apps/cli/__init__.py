"""Commands of the programs that stay open."""
