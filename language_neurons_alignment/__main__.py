"""`python -m language_neurons_alignment`, which is `lna`."""

from .cli import main

main()
