"""Runs every command of README.md and of the pages in `docs/`, so that none can go stale."""
