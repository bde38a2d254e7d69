"""A recipe so small that a run takes seconds."""

CRF = {
    "unary": "labels",
    "kernels": {
        "gaussian_sxy": 3,
        "gaussian_compat": 3,
        "bilateral_sxy": 30,
        "bilateral_srgb": 5,
        "bilateral_compat": 5,
        "iterations": 2,
    },
}

TINY = {
    "data": {"split": "all"},
    "backbone": {"name": "test_efficientnet", "weights": "none", "frozen_stages": 1},
    "classify": {
        "epochs": 3,
        "batch_size": 4,
        "long_side": [64, 96],
        "crop": 64,
        "optimizer": {
            "name": "sgd",
            "lr": 0.01,
            "head_lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 0,
        },
        "validation_fraction": 0.25,
    },
    "localize": {"scales": [0.5, 1.0], "feature_stages": [0, 1], "feature_scales": [0.5, 1.0]},
    "svm": {
        "foreground_threshold": 0.5,
        "background_threshold": 0.2,
        "samples_per_class": 50,
        "cycles": 1,
    },
    "crf": CRF,
    "cam_crf": CRF,
    "evaluate": {"cam_threshold": 0.4},
    "report": {"panels": 2},
}
