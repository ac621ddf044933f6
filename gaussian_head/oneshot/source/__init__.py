"""Portraits: found faces, crops at the renderer's size, first-frame coefficients, and the way back into the picture."""
