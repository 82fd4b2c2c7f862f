"""Pictures of what networks see: which pixels, layers and images their outputs depend on."""
