"""What people have a line do: commands, standing orders, thresholds, changeovers, the self test."""
