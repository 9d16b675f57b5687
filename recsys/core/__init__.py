"""What every other part may use: names, plain settings, bounded reading, processors."""
