"""The leading singular directions of a large sparse matrix."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Matrix = NDArray[np.float32]

_ROUNDS, _OVERSAMPLED = 4, 32


def leading_directions(matrix: csr_matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The largest singular values of a sparse matrix [m, n], and their right singular vectors.

    By subspace iteration from a random start (Halko et al. 2011, "Finding structure with
    randomness"), with bases made orthonormal through their Gram matrices.

    Returns:
        float32 [k], falling, and float32 [n, k]; k is at most ``rank``, and no direction without a
        share in the matrix is among them.
    """
    width = min(rank + _OVERSAMPLED, *matrix.shape)
    transposed = matrix.T.tocsr()
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], width), dtype=np.float32)
    for _ in range(_ROUNDS):
        basis = _orthonormal(transposed @ (matrix @ basis))
    image = matrix @ basis
    squares, rotation = np.linalg.eigh((image.T @ image).astype(np.float64))
    squares, rotation = squares[::-1][:rank], rotation[:, ::-1][:, :rank]
    real = squares > 1e-6 * max(float(squares[0]), 1e-30)
    values = np.sqrt(squares[real]).astype(np.float32)
    return values, basis @ rotation[:, real].astype(np.float32)


def _orthonormal(columns: Matrix) -> Matrix:
    """An orthonormal basis of the columns' span; directions that are noise beside it fall away."""
    squares, rotation = np.linalg.eigh((columns.T @ columns).astype(np.float64))
    real = squares > 1e-10 * squares[-1]
    basis: Matrix = columns @ (rotation[:, real] / np.sqrt(squares[real])).astype(np.float32)
    return basis
