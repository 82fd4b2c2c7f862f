"""Policies and heads on an encoder, and how a pretrained encoder is trained."""
