"""A stand-in for the five social platforms: it speaks as they do, and misbehaves as it is told to."""
