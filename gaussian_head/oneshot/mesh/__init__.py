"""The renderer that needs no weights: a portrait as a mesh of its face, moved by sound."""
