"""Policies: heads on an encoder, and the training of a pretrained encoder."""
