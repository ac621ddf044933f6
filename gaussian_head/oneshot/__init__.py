"""One-shot talking heads: a portrait and a voice become a video."""
