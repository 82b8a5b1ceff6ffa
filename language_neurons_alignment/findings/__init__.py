"""What the neurons tell: of one model, of several, and how surely; tables, figures, a page."""
