"""The way back: predictions of the current model for labellers, and which tasks they should label next."""
