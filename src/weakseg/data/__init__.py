"""Data folders as samples; photos and masks as arrays."""
