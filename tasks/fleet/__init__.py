"""Engines on their way to the devices of a fleet, and what is where."""
