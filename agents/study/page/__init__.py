"""What the page of a study shows beside its figures: films, and text without a machine's paths."""
