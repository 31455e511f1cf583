"""What is compared: each module runs in its contender's own environment, as worker or producer."""
