"""Options as fields of dataclasses, and the command line made of them."""
