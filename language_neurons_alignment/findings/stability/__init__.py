"""How much of what was found is chance: intervals, inclusion probabilities, halves, two corpora."""
