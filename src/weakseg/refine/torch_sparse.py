"""Sparse matrices of torch, whose products with dense ones are the same every time."""

import warnings

import torch
from torch import Tensor


def csr_matrix(rows: Tensor, columns: Tensor, values: Tensor, height: int, width: int) -> Tensor:
    """A matrix (height, width) in rows, from its entries; none may occur twice.

    Args:
        rows, columns: int64 (n,), where the entries are, in any order.
        values: float (n,), on the same device.
    """
    order = torch.argsort(rows, stable=True)
    starts = torch.zeros(height + 1, dtype=torch.int64, device=rows.device)
    torch.cumsum(torch.bincount(rows, minlength=height), dim=0, out=starts[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, columns[order], values[order], (height, width), check_invariants=False
        )
