"""The Gaussian head: Gaussians, what moves them, and how they are kept on disk."""
