"""What data looks like: keypoint layouts, coordinates, records, specs, errors. Imports nothing of ours."""
