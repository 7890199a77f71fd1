"""What the instrumentation costs, next to other ways of having it. ``make bench`` runs it all; CI holds the ratios."""
