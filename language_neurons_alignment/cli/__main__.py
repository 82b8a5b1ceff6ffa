"""`python -m language_neurons_alignment.cli`."""

from . import main

main()
