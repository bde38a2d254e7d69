"""Photos to masks by a trained segmentation network."""
