"""What makes networks fast on a CPU: each gives the results of plain torch, or steps aside.

`fused` folds BatchNorm and activations into convolutions for inference, `depthwise` has fast
gradients for training, `onednn` tells what this CPU and this torch can do.
"""
