"""A procedural talking person: a licence-free video whose truth is known (command: data_utils.synthetic).

Everything is computed from one seed: the head is a lofted surface with painted textures, the voice is formant
synthesis, and the same phonemes drive the sound and the mouth.
"""
