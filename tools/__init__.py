"""Scripts for developers of arlm."""
