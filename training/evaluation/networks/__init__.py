"""Networks that see pictures: features for FID and KID, maps for perceptual distances."""
