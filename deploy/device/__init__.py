"""What happens on a device: what it is, a build there, a run there."""
