"""A portrait and coefficients of expression and pose become frames; one module for each renderer."""
