"""The page on which a run's masks are mended."""
