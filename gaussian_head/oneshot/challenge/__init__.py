"""The six-step pipeline of a ViCo 2023 challenge entry: sound and first frames become videos of speakers."""
