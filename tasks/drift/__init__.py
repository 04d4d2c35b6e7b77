"""Whether devices see what their model was trained for."""
