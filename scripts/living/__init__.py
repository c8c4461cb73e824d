"""What make_living_caches.py is made of; NumPy only, nothing of kvprof."""
