"""Measures what the appliance is meant to reach, each figure against a baseline in the same run on the same machine."""
