"""The social platforms: how each is spoken to, and the one way on which every request to them goes."""
