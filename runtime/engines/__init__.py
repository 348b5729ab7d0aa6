"""Engine directories: what is in them, and the backends that compute with them."""
