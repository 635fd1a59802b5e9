"""Results as text, JSON, HTML and other tools' formats; views compute nothing."""
