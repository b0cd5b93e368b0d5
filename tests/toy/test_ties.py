import numpy as np
import pytest

from stagewise.toy.modes import echelon_basis, tied_groups


def test_equal_values_form_groups():
    values = np.array([3.0, 2.0, 2.0 * (1 - 1e-12), 1.0, 1.0, 0.0, 0.0])
    assert tied_groups(values, 1e-9) == ((0,), (1, 2), (3, 4), (5, 6))
    assert tied_groups(values, 0.0) == ((0,), (1,), (2,), (3, 4), (5, 6))


def test_tolerance_counts_from_the_largest_of_a_group():
    # A chain of neighbours would make one group of all four.
    assert tied_groups(np.array([1.0, 0.92, 0.85, 0.78]), 0.1) == ((0, 1), (2, 3))


@pytest.mark.parametrize("seed", range(5))
def test_the_basis_depends_on_the_subspace_alone(seed):
    generator = np.random.default_rng(seed)
    vectors = np.linalg.qr(generator.normal(size=(7, 3)))[0]
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    basis = echelon_basis(vectors)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis @ basis.T, vectors @ vectors.T, atol=1e-12)
    np.testing.assert_allclose(echelon_basis(vectors @ turn), basis, atol=1e-11)
    # Echelon form: entry k of vector k is positive, and later vectors have none there.
    np.testing.assert_allclose(np.triu(basis[:3], 1), 0, atol=1e-12)
    assert (np.diag(basis) > 0).all()


def test_items_without_a_share_in_the_subspace_are_passed_over():
    vectors = np.array([[0, 0], [0.6, 0.8], [0.6, 0.8], [0.8, -0.6], [0.8, -0.6]]) / np.sqrt(2)
    expected = np.array([[0, 0], [1, 0], [1, 0], [0, 1], [0, 1]]) / np.sqrt(2)
    np.testing.assert_allclose(echelon_basis(vectors), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_items_with_almost_the_same_share_leave_the_basis_orthonormal(seed):
    vectors = np.random.default_rng(seed).normal(size=(6, 3))
    vectors[1] = vectors[0] + 1e-5 * vectors[1]
    vectors[2] = vectors[0] - 1e-5 * vectors[2]
    vectors = np.linalg.qr(vectors)[0]
    basis = echelon_basis(vectors)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-13)
    np.testing.assert_allclose(basis @ (basis.T @ vectors), vectors, atol=1e-13)
