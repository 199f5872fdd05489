"""Lets people control a running line: commands, standing orders, thresholds, changeovers, the self test."""
