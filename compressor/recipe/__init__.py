"""What is asked: recipes, and the plans they compile into. Imports no torch."""
