"""Measurements against named peers, side by side in one run; none of them is a test."""
