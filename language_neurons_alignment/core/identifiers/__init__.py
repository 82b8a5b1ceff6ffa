"""Other ways to find language neurons, one a file: each gives the neurons of every language (FIELD).

The method of this project, entropy-λ, is `core.selection`: its parts serve AutoSweep and the λ path too.
"""
