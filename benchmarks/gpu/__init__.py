"""All that is measured on a GPU machine without a network, in stages, by `benchmarks/gpu.sh`."""
