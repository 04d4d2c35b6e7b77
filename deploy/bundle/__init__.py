"""What a device team gets: an engine with what DeepStream and Triton need, checksums and a signature."""
