"""A per-subject 3D Gaussian talking head: data, model, training, synthesis and evaluation."""
