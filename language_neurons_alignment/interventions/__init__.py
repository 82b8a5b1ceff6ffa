"""The one language of interventions: operations on sets of neurons, done in a stated order."""
