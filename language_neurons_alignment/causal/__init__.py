"""What changes when neurons are changed: interventions by name, evaluation, forcing, controls, stability, methods.

Every effect that a use-case of this room shows comes with a control and an interval.
"""
