"""One module for each platform's own way of speaking."""
