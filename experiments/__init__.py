"""Long runs whose results the book prints: ``python -m experiments NAME``."""
