"""Stages bind algorithms to artefacts; a runner orders, skips and resumes them."""
