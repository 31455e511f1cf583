"""What builds the documentation from the code: `make docs`."""
