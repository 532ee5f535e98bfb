"""Generators of patches, and the classifier that is trained on them."""
