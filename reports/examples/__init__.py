"""The committed example: the demo's report as this release produces it, and the packed cache that it comes from."""
