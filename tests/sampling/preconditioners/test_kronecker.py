import pytest
import torch

from stagewise.sampling.preconditioners.kronecker import KroneckerBlock, KroneckerPreconditioner


def orthogonal(size, generator):
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


@pytest.fixture
def case():
    """Flat weights: bias [2], weight [3, 4], weight [2, 5], bias [3]; the first layer is 3 x (4 + 1)."""
    generator = torch.Generator().manual_seed(0)
    first = KroneckerBlock(
        parts=((2, 4), (24, 1)),
        left=orthogonal(3, generator),
        right=orthogonal(5, generator),
        scale=torch.rand(3, 5, generator=generator, dtype=torch.float64) + 0.1,
    )
    second = KroneckerBlock(
        parts=((14, 5), (0, 1)),
        left=orthogonal(2, generator),
        right=orthogonal(6, generator),
        scale=torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1,
    )
    where = [
        torch.cat([torch.arange(2, 14).view(3, 4), torch.arange(24, 27).view(3, 1)], dim=1),
        torch.cat([torch.arange(14, 24).view(2, 5), torch.arange(0, 2).view(2, 1)], dim=1),
    ]
    dense = torch.zeros(27, 27, dtype=torch.float64)
    for block, index in zip((first, second), where, strict=True):
        basis = torch.kron(block.left, block.right)
        rows = index.flatten()
        dense[rows[:, None], rows] = basis @ torch.diag(block.scale.flatten()) @ basis.T
    return KroneckerPreconditioner([first, second]), dense


def test_product_equals_that_of_the_dense_matrix_in_the_order_of_the_weights(case):
    preconditioner, dense = case
    x = torch.randn(27, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(preconditioner.times(x), dense @ x)


def test_root_times_its_transpose_is_the_product(case):
    preconditioner, dense = case
    root = preconditioner.root_times(torch.eye(27, dtype=torch.float64)).T
    torch.testing.assert_close(root @ root.T, dense)


@pytest.mark.parametrize("name", ["times", "root_times"])
def test_leading_axes_are_many_vectors(case, name):
    multiply = getattr(case[0], name)
    x = torch.randn(2, 3, 27, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one_by_one = torch.stack([torch.stack([multiply(row) for row in rows]) for rows in x])
    torch.testing.assert_close(multiply(x), one_by_one)
    torch.testing.assert_close(torch.func.vmap(multiply)(x), one_by_one)
