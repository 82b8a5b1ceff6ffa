"""The model's own answers: asked, drawn, and kept so that a kill loses a batch at most."""
