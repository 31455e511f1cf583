"""The files in deploy/, read by the programs that they are for."""
