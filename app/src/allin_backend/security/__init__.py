"""Passwords, encryption and tokens."""
