"""lerpbench."""
