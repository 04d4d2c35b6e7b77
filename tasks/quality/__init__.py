"""Quality of the labels: who disagrees with whom, which labels look wrong, which images are there twice."""
