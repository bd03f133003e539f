"""The streamed PCA: against scikit-learn, against known spectra, and in every special case."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weights2weights.errors import InputError
from weights2weights.pca import (
    ColumnStatistics,
    TensorBlocks,
    _linear,
    _matrix,
    column_statistics,
    fit_pca,
    variance_bound,
)

ROWS, COLUMNS, COMPONENTS = 300, 420, 20


def waves(rows: int, columns: int, variances: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A matrix whose correlation matrix has exactly the given eigenvalues, up to a factor.

    Left and right singular vectors are waves of distinct frequencies, orthogonal to constants. A
    sine and a cosine of one frequency share an eigenvalue, so that every column has the same
    variance and standardising changes nothing. Columns get random means and scales, which
    standardising must remove.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = len(variances) // 2
    down, across = (
        torch.randperm((size - 1) // 2, generator=generator)[:pairs].double() + 1
        for size in (rows, columns)
    )
    time = 2 * math.pi * torch.outer(torch.randperm(rows, generator=generator).double(), down)
    place = 2 * math.pi * torch.outer(torch.arange(columns).double(), across) / columns
    time = time / rows + 6 * torch.rand(pairs, generator=generator)
    scale = variances[::2].double().sqrt()
    matrix = (time.cos() * scale) @ place.cos().T + (time.sin() * scale) @ place.sin().T
    scales = torch.randn(columns, generator=generator).double().exp()
    return (matrix * scales + torch.randn(columns, generator=generator)).float()


def paired(variances: torch.Tensor) -> torch.Tensor:
    variances = variances[: len(variances) // 2 * 2].double()
    return variances[::2].repeat_interleave(2)


def spectrum(name: str, rank: int = ROWS - 2) -> torch.Tensor:
    order = torch.arange(1, rank + 1, dtype=torch.float64)
    noise = (1 + math.sqrt(rank / COLUMNS) * torch.cos(math.pi * (order - 0.5) / rank)) ** 2
    return paired(
        {
            "power law": 1 / order,
            "slow power law": order**-0.5,
            "power law and noise": 0.7 / order / (1 / order).sum() + 0.3 * noise / noise.sum(),
            "steep power law": order**-2,
            "flat tail": torch.where(order <= 10, 100 / order, 0.1),
            "exponential": (-order / 8).exp(),
            "low rank": torch.where(order <= 10, 1 / order, 0.0)[:10],
        }[name]
    )


@dataclass
class Uneven:
    """A matrix in blocks of any heights."""

    parts: Sequence[torch.Tensor]

    @property
    def rows(self) -> int:
        return sum(map(len, self.parts))

    @property
    def columns(self) -> int:
        return self.parts[0].shape[1]

    def __iter__(self):
        return iter(self.parts)


SPECTRA = [
    "power law",
    "slow power law",
    "power law and noise",
    "steep power law",
    "flat tail",
    "exponential",
    "low rank",
]


@pytest.fixture
def iterative(monkeypatch):
    """Never solve exactly, however small the matrix."""
    monkeypatch.setattr(_matrix, "EXACT_SIDE", 0)


def standardised(matrix: torch.Tensor) -> np.ndarray:
    matrix = matrix.double()
    return ((matrix - matrix.mean(0)) / matrix.std(0)).numpy()


def largest_angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """In radians, between the spans of orthonormal rows."""
    outside = one.double() - one.double() @ other.double().T @ other.double()
    return float(torch.linalg.matrix_norm(outside, 2).clamp(max=1).asin())


@pytest.mark.parametrize("search_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_captures_as_much_variance_as_full_pca_in_scikit_learn(iterative, name, search_dtype):
    from sklearn.decomposition import PCA as FullPCA

    matrix = waves(ROWS, COLUMNS, spectrum(name))
    full = FullPCA(svd_solver="full").fit(standardised(matrix))
    ours = fit_pca(TensorBlocks(matrix, 64), COMPONENTS, search_dtype=search_dtype)
    kept = len(ours.components)
    assert kept == (10 if name == "low rank" else COMPONENTS)
    best = full.explained_variance_ratio_[:kept].sum()
    assert best - ours.captured_variance <= 1e-3 * best
    assert ours.captured_variance <= best + 1e-6
    assert ours.captured_variance + ours.error_bound >= best - 1e-6
    assert ours.total_variance == COLUMNS


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "iterative"])
@pytest.mark.parametrize("name", ["power law", "flat tail", "exponential", "low rank"])
def test_spans_the_same_subspace_as_scikit_learn(monkeypatch, name, exact):
    from sklearn.decomposition import PCA as FullPCA

    monkeypatch.setattr(_matrix, "EXACT_SIDE", 4096 if exact else 0)
    matrix = waves(ROWS, COLUMNS, spectrum(name))
    full = FullPCA(svd_solver="full").fit(standardised(matrix))
    ours = fit_pca(TensorBlocks(matrix), COMPONENTS, tolerance=1e-7)
    kept = 10  # in the flat tail the others are any
    assert largest_angle(ours.components[:kept], torch.tensor(full.components_[:kept])) < 2e-3
    expected = torch.tensor(full.explained_variance_[:kept]).float()
    torch.testing.assert_close(ours.variances[:kept], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4])
def test_error_bound_holds_and_stops_at_the_tolerance(iterative, name, tolerance):
    variances = spectrum(name)
    matrix = waves(ROWS, COLUMNS, variances)
    ours = fit_pca(TensorBlocks(matrix), COMPONENTS, tolerance=tolerance)
    best = float(variances[:COMPONENTS].sum() / variances.sum())
    missed = best - ours.captured_variance
    assert -1e-6 < missed <= ours.error_bound + 1e-6
    assert ours.error_bound <= tolerance * ours.captured_variance or ours.passes == 16


def test_bound_of_pure_noise_is_loose_but_holds(iterative):
    noise = torch.randn(400, 900, generator=torch.Generator().manual_seed(0))
    ours = fit_pca(TensorBlocks(noise), 10, tolerance=1e-6, max_passes=8)
    values = np.linalg.eigvalsh(standardised(noise) @ standardised(noise).T / 399)[::-1]
    missed = values[:10].sum() / 900 - ours.captured_variance
    assert 0 < missed <= ours.error_bound
    assert ours.passes <= 8


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.0, 0.3))
@settings(max_examples=60)
def test_variance_bound_is_a_theorem(seed, components, tilt):
    """For any tilt of the subspace, given the true largest eigenvalue outside."""
    generator = torch.Generator().manual_seed(seed)
    size, width = 14, 7
    values = (
        torch.rand(size, dtype=torch.float64, generator=generator).sort(descending=True)[0] ** 3
    )
    whole = torch.diag(values)
    disturbance = torch.randn(size, width, dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(torch.eye(size, dtype=torch.float64)[:, :width] + tilt * disturbance)[0]
    ritz, rotation = torch.linalg.eigh(basis.T @ whole @ basis)
    ritz, basis = ritz.flip(0), basis @ rotation.flip(1)
    residual = whole @ basis - basis * ritz
    outside = torch.eye(size, dtype=torch.float64) - basis @ basis.T
    rest = float(torch.linalg.eigvalsh(outside @ whole @ outside)[-1])
    bound = variance_bound(ritz, residual.T @ residual, components, rest)
    assert float(values[:components].sum() - ritz[:components].sum()) <= bound + 1e-12


def test_bound_is_zero_without_residual_and_infinite_without_estimate():
    values, none = torch.tensor([3.0, 2.0, 1.0]).double(), torch.zeros(3, 3).double()
    assert variance_bound(values, none, 2, 0.5) == pytest.approx(0, abs=1e-4)
    assert variance_bound(values, none, 2, math.inf) == math.inf


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "iterative"])
def test_row_order_and_block_size_change_nothing(monkeypatch, exact):
    monkeypatch.setattr(_matrix, "EXACT_SIDE", 4096 if exact else 0)
    # distinct eigenvalues, so that single components are determined and not just their span
    generator = torch.Generator().manual_seed(3)
    left, right = (
        torch.linalg.qr(torch.randn(size, 40, generator=generator).double())[0]
        for size in (ROWS, COLUMNS)
    )
    matrix = ((left * 0.8 ** torch.arange(40)) @ right.T).float()
    reference = fit_pca(TensorBlocks(matrix, ROWS), 10, tolerance=1e-7)
    order = torch.randperm(ROWS, generator=generator)
    for other in (
        TensorBlocks(matrix, 1),
        TensorBlocks(matrix, 37),
        TensorBlocks(matrix[order], 64),
        Uneven(matrix.split([1, 99, 7, 150, ROWS - 257])),
    ):
        again = fit_pca(other, 10, tolerance=1e-7)
        for name in ("mean", "std", "components", "variances"):
            torch.testing.assert_close(
                getattr(again, name), getattr(reference, name), rtol=1e-5, atol=1e-5
            )
        assert again.captured_variance == pytest.approx(reference.captured_variance, rel=1e-5)


def test_rows_multiplied_together_change_nothing(iterative, monkeypatch):
    matrix = waves(ROWS, COLUMNS, spectrum("exponential"))
    reference = fit_pca(TensorBlocks(matrix), 10)
    monkeypatch.setattr(_matrix, "_HEIGHT", 77)
    monkeypatch.setattr(_linear, "_PANEL", 100)
    again = fit_pca(TensorBlocks(matrix, 10), 10)
    assert largest_angle(again.components, reference.components) < 1e-4
    torch.testing.assert_close(again.variances, reference.variances, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "iterative"])
def test_components_are_orthonormal_with_the_reported_variances(monkeypatch, exact):
    monkeypatch.setattr(_matrix, "EXACT_SIDE", 4096 if exact else 0)
    matrix = waves(ROWS, COLUMNS, spectrum("steep power law"))
    ours = fit_pca(TensorBlocks(matrix), COMPONENTS)
    torch.testing.assert_close(
        ours.components @ ours.components.T, torch.eye(COMPONENTS), rtol=0, atol=1e-5
    )
    coefficients = torch.tensor(standardised(matrix)).float() @ ours.components.T
    torch.testing.assert_close(coefficients.var(0), ours.variances, rtol=1e-4, atol=1e-4)
    assert (ours.variances.diff() <= 1e-4).all()
    correlation = torch.corrcoef(coefficients.T) - torch.eye(COMPONENTS)
    assert correlation.abs().max() < 1e-2


def test_first_of_the_largest_entries_is_positive():
    ours = fit_pca(TensorBlocks(waves(ROWS, COLUMNS, spectrum("power law"))), COMPONENTS)
    for component in ours.components:
        large = component.abs() >= 0.999 * component.abs().max()
        assert component[int(large.to(torch.uint8).argmax())] > 0


def test_negating_the_rows_gives_the_same_components():
    matrix = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    one, other = fit_pca(TensorBlocks(matrix), 5), fit_pca(TensorBlocks(-matrix), 5)
    torch.testing.assert_close(one.components, other.components, rtol=1e-4, atol=1e-5)


def test_same_seed_same_bits_and_any_seed_the_same_span(iterative):
    blocks = TensorBlocks(waves(ROWS, COLUMNS, spectrum("exponential")))
    one, same, other = (
        fit_pca(blocks, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.components, same.components)
    assert largest_angle(one.components, other.components) < 1e-2


# Statistics.


def test_statistics_are_stable_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(500, 8, generator=generator, dtype=torch.float64) * 1e-3 + 1e4
    statistics = column_statistics(TensorBlocks(matrix, 17))
    torch.testing.assert_close(statistics.mean, matrix.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(statistics.std, matrix.std(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_statistics_of_any_float(dtype):
    matrix = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    statistics = column_statistics(TensorBlocks(matrix, 30))
    torch.testing.assert_close(statistics.mean, matrix.double().mean(0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(statistics.std, matrix.double().std(0), rtol=1e-6, atol=0)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=40)
def test_statistics_do_not_depend_on_blocks(heights):
    matrix = torch.randn(sum(heights) + 1, 5, generator=torch.Generator().manual_seed(0))
    cut = Uneven(matrix.split([1, *heights]))
    one, other = column_statistics(TensorBlocks(matrix)), column_statistics(cut)
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.scatter, other.scatter)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-1e3, 1e3))
@settings(max_examples=25)
def test_statistics_of_parts_merge_into_those_of_the_whole(first, second, offset):
    generator = torch.Generator().manual_seed(first * 41 + second)
    one = torch.randn(first, 5, generator=generator)
    other = torch.randn(second, 5, generator=generator) + offset
    merged = column_statistics(TensorBlocks(one)).merge(column_statistics(TensorBlocks(other)))
    whole = torch.cat([one, other]).double()
    assert merged.rows == first + second
    torch.testing.assert_close(merged.mean, whole.mean(0), rtol=1e-7, atol=1e-7)
    deviations = ((whole - whole.mean(0)) ** 2).sum(0)
    torch.testing.assert_close(merged.scatter, deviations, rtol=1e-5, atol=1e-6)


# Special cases that the package's text promises.


def test_constant_column_has_std_one_and_is_zero_in_every_component():
    matrix = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    matrix[:, 3] = 0.1
    matrix[:, 7] = 0
    ours = fit_pca(TensorBlocks(matrix, 7), 5)
    assert ours.std[3] == ours.std[7] == 1
    assert (ours.components[:, [3, 7]] == 0).all()
    assert ours.total_variance == 10
    assert ours.mean[3] == pytest.approx(0.1)


def test_constant_column_in_the_iterative_search(iterative):
    matrix = waves(ROWS, COLUMNS, spectrum("power law"))
    matrix[:, 5] = -3
    ours = fit_pca(TensorBlocks(matrix), 8)
    assert ours.std[5] == 1
    assert ours.components[:, 5].abs().max() < 1e-6
    assert ours.total_variance == COLUMNS - 1


def test_fewer_rows_than_components_gives_rows_minus_one():
    matrix = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    ours = fit_pca(TensorBlocks(matrix), 20)
    assert ours.components.shape == (5, 50)
    assert ours.captured_variance == pytest.approx(1)
    assert ours.error_bound == 0


def test_two_rows_span_a_line():
    ours = fit_pca(TensorBlocks(torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])), 3)
    torch.testing.assert_close(ours.components.abs(), torch.tensor([[0.5**0.5, 0, 0.5**0.5]]))
    assert ours.variances.tolist() == pytest.approx([2])


def test_duplicates_count_as_often_as_they_occur():
    matrix = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    twice = fit_pca(TensorBlocks(torch.cat([matrix, matrix])), 4)
    once = fit_pca(TensorBlocks(matrix), 4)
    torch.testing.assert_close(twice.components, once.components, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twice.std, once.std * math.sqrt(58 / 59))


def test_many_columns_that_are_equal_still_converge(iterative):
    matrix = waves(ROWS, 100, spectrum("exponential")[:60]).repeat(1, 4)
    ours = fit_pca(TensorBlocks(matrix), 10)
    assert ours.error_bound <= 1e-3
    assert largest_angle(ours.components[:, :100] * 2, ours.components[:, 100:200] * 2) < 1e-3


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(0, 4), "no rows"),
        (torch.ones(1, 4), "at least two models"),
        (torch.ones(9, 4), "all 9 rows are equal"),
        (torch.tensor([[1.0, math.nan], [1.0, 2.0], [math.inf, 0.0]]), r"2 of 3 rows .*row 0, 2"),
    ],
)
def test_matrix_without_a_space_is_one_clear_line(matrix, message):
    with pytest.raises(InputError, match=message):
        fit_pca(TensorBlocks(matrix), 2)


def test_rows_that_are_not_finite_are_named():
    matrix = torch.randn(100, 6)
    matrix[[3, 64, 99], 2] = math.nan
    with pytest.raises(InputError, match=r"3 of 100 rows .*row 3, 64, 99,"):
        fit_pca(TensorBlocks(matrix, 33), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"components": 0}, "at least 1"), ({"components": 2, "max_passes": 1}, "at least 4")],
)
def test_impossible_settings(options, message):
    with pytest.raises(InputError, match=message):
        fit_pca(TensorBlocks(torch.randn(9, 4)), **options)


@dataclass
class Shrinking:
    """A matrix that loses a row after the first pass, as a folder does that others write to."""

    rows: int = 80
    columns: int = 70
    read: int = 0

    def __iter__(self):
        yield torch.randn(80 - self.read, 70)
        self.read += 1


@dataclass
class Ragged:
    rows: int = 4
    columns: int = 3

    def __iter__(self):
        yield torch.randn(4, 2)


def test_matrix_that_changes_between_passes_is_noticed():
    with pytest.raises(InputError, match="79 rows in this pass, expected 80"):
        fit_pca(Shrinking(), 3)
    with pytest.raises(InputError, match=r"shape \(4, 2\), expected \(rows, 3\)"):
        fit_pca(Ragged(), 3)


def test_progress_goes_to_stderr_only(capsys):
    fit_pca(TensorBlocks(torch.randn(20, 5)), 2, progress=True)
    printed = capsys.readouterr()
    assert "statistics" in printed.err
    assert not printed.out


def test_constant_columns_have_std_exactly_zero():
    statistics = ColumnStatistics(4, torch.tensor([1e3, 0.0]).double(), torch.zeros(2).double())
    assert statistics.std.tolist() == [0, 0]


@pytest.mark.gpu
def test_accelerator_gives_the_same_space(iterative):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    blocks = TensorBlocks(waves(ROWS, COLUMNS, spectrum("power law")))
    here, there = (fit_pca(blocks, 10, tolerance=1e-5, device=device) for device in ("cpu", "cuda"))
    assert there.components.device.type == "cpu"
    assert largest_angle(here.components, there.components) < 1e-2
    assert there.captured_variance == pytest.approx(here.captured_variance, rel=1e-5)
