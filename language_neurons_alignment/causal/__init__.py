"""What changes when neurons are changed: every effect shown here has a control and an interval."""
