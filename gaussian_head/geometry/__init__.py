"""Cameras, rotations and the tables of the face: pure mathematics, no files, no networks."""
