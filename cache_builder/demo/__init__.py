"""The bundled micro chat model: its words, its lessons, its training, its measurements, and its data."""
