"""What is written in README and docs/ is true: links, names, and every block of code."""
