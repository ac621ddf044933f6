"""Frozen third-party networks, one short file each."""
