"""Workers and servers killed at random under load, and a checker that shares no code with them."""
