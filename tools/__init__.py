"""Scripts for those who work on arlm."""
