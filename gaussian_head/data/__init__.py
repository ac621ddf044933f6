"""The subject folder: its layout, its frames as typed tensors, and the order in which they are drawn."""
