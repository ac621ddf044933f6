"""Measures of talking heads, one file each, and the report that gathers them."""
