"""Faces that the project renders itself: a shaded 3D head whose keypoints and flags are exact."""
