"""The HTTP service: images in, images with defects out, for line software and web back ends."""
