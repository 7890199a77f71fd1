"""Publishing what is due, and the jobs around it."""
