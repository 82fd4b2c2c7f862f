"""A study: games x arms x seeds, planned, run, compared, and reported."""
