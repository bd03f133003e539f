"""Standardised PCA of a matrix that is too large to hold: N weight vectors of d parameters each.

The matrix X (one model per row) arrives as a stream of row blocks that can be read repeatedly.
Every column is standardised, z = (x − mean) / std, and we want the m leading eigenvectors of the
correlation matrix C = ZᵀZ / (N − 1). Neither Z nor C is ever formed.

Method
    1. One pass gives mean and unbiased std of every column: two-pass sums within small groups of
       rows, merged in float64 (Chan, Golub and LeVeque 1979).
    2. If one side of the matrix is small, its eigenproblem is solved exactly, in float64, in one
       more pass.
    3. Otherwise a block Krylov method: from l = m + oversampling random directions Q, each pass
       computes C Q = Zᵀ(Z Q) / (N − 1) for a new orthonormal block Q. The l best Ritz vectors of
       all blocks together are multiplied once more, in float32; all figures come from this last
       product. If the bound below is not yet small enough, its residual is the next block (a thick
       restart). Memory: about six blocks of d × l values, whatever N.

Where the processor multiplies bfloat16 matrices natively, large problems use it in the passes that
only *search*: rounding there costs a relative 1e-6 of captured variance.

Error bound
    Let θ be the Ritz values and R = C V − V diag(θ) the residual of the l Ritz vectors V of the
    last product, and ε the largest eigenvalue of C restricted to the complement of V. By the
    inertia of the Schur complement of C − tI, every eigenvalue of C satisfies
    λ_i ≤ max(t, λ_i(diag(θ) + RᵀR / (t − ε))) for every t > ε. With the best t for each i, the sum
    over i ≤ m bounds how much more variance *any* m directions could capture. All of it is computed
    except ε, estimated by the first Ritz value that was left out plus the norm of its residual, or
    by θ_l if larger: the bound's only assumption. It is looser for a flat tail than for a gap.

Guarantees
    * A column without variance (std below float32's resolution of its mean) counts as constant: its
      std is set to 1 and every component is 0 there.
    * N < m, or a rank below m: as many components are returned as there are directions of variance
      (at most N − 1).
    * N = 1, NaN or infinite values: an `InputError` that names the rows.
    * Row order and block size do not matter beyond rounding; same seed, same result.
    * Signs: among the entries of a component within 0.1 % of its largest magnitude, the first is
      positive.

Sources: block Krylov, Musco and Musco 2015, arXiv:1504.05477; thick restart, Wu and Simon 2000;
inertia of a Schur complement, Haynsworth 1968.
"""

from ._blocks import Blocks, TensorBlocks
from ._fit import PCA, fit_pca
from ._krylov import variance_bound
from ._statistics import ColumnStatistics, column_statistics

__all__ = [
    "PCA",
    "Blocks",
    "ColumnStatistics",
    "TensorBlocks",
    "column_statistics",
    "fit_pca",
    "variance_bound",
]
