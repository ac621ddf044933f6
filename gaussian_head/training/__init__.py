"""Fitting a head to a subject: one loop, three stages."""
