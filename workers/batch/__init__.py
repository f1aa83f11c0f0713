"""Batch jobs: check the file, run its slices, assemble what they wrote."""
