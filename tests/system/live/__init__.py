"""Many browsers that stay open while turns run: nothing may grow. ``make browsers``."""
