"""From seeds to pseudo masks: sample selection, the per-image SVM, the dense CRF."""
