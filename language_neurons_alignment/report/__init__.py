"""Results as one page: what each figure shows and how to read it, interactive in a browser, and as plain pictures."""
