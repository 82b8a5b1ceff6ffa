"""Right number, right language: every question answered with nothing and with each change done."""
