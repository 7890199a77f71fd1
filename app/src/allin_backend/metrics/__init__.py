"""The backend's instruments. ``contract`` declares them; the other modules fill and expose what it declares."""
