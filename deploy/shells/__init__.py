"""Ways to run a program and keep files on a device: this machine, or one behind SSH."""
