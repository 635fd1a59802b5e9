"""One module a topic: its docstring says what is measured and how; ``measure`` yields the results."""
