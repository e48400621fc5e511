"""NTU-RGB+D itself: names, protocols, skeleton text, people, video."""
