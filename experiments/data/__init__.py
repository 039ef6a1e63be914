"""Data sets as arrays, and sequences of tasks cut from them."""
