"""Heads to pictures: rasterize the branches, lay them over each other and over the background."""
