"""Labelled images: loaded by name, from folders or published files, augmented, and batched."""
