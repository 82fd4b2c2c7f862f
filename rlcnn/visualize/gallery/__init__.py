"""The galleries of ``visualize_encoder.py``: options, network and images, and their sheets."""
