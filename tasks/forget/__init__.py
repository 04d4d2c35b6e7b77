"""Withdrawing a person: every trace of a subject taken out of a workspace, and kept out."""
