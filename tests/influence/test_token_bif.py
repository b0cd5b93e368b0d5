import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.influence.sign import SIGN
from stagewise.influence.split import Centering, split
from stagewise.influence.token_bif import token_bif, token_bif_blocks


def losses(dtype=np.float64, level=3.0, size=1.0, shape=(3, 8, 5, 4)):
    generator = np.random.default_rng(0)
    common = generator.normal(size=(*shape[:2], 1, 1)) + generator.normal(size=(shape[0], 1, *shape[2:]))
    return (level + size * (generator.normal(size=shape) + common)).astype(dtype)


@pytest.mark.parametrize("centering", list(Centering))
def test_token_bif_is_minus_the_within_part_of_the_split(centering):
    loss = losses()
    got = token_bif(loss, centering=centering)
    want = -split(loss.reshape(3, 8, 20), centering=centering).within
    assert got.dims == ("sample", "token", "sample_j", "token_j")
    np.testing.assert_allclose(got.values.reshape(20, 20), want, atol=1e-12)
    assert (got.attrs["sign"], got.attrs["units"]) == (SIGN, "nats^2")


def test_correlations_equal_numpy_with_the_sign_of_influence():
    loss = losses()[:1]
    got = token_bif(loss, correlate=True)
    np.testing.assert_allclose(got.values.reshape(20, 20), -np.corrcoef(loss.reshape(8, 20).T), atol=1e-12)
    assert got.attrs["units"] == "1"


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
@pytest.mark.parametrize("correlate", [False, True])
def test_blocks_combine_to_the_whole(chunk_size, correlate):
    loss = losses(np.float32)
    whole = token_bif(loss, correlate=correlate).values
    seen = 0
    for rows, block in token_bif_blocks(loss, correlate=correlate, chunk_size=chunk_size):
        assert len(block) <= chunk_size
        np.testing.assert_allclose(block, whole[rows], rtol=1e-5, atol=1e-6)
        seen += len(block)
    assert seen == 5


def test_sample_losses_have_no_token_axes():
    loss = losses()[..., 0]
    got = token_bif(loss, centering=Centering.pooled)
    assert got.dims == ("sample", "sample_j")
    np.testing.assert_allclose(got.values, -np.cov(loss.reshape(24, 5).T, ddof=0))


@pytest.mark.parametrize(("level", "size"), [(3.0, 1e-1), (10.0, 1e-3), (1e-4, 1e-5)])
def test_float32_is_as_good_as_float64_on_the_same_trace(level, size):
    """Errors in units of the standard deviations, as for a correlation; 4 x 250 draws."""
    loss = losses(np.float32, level, size, shape=(4, 250, 6, 5))
    exact = token_bif(loss.astype(np.float64)).values.reshape(30, 30)
    single = token_bif(loss)
    assert single.dtype == np.float32
    deviation = np.sqrt(-np.diag(exact))
    error = np.abs(single.values.reshape(30, 30) - exact) / deviation / deviation[:, None]
    assert error.max() < 1e-6


def test_float32_without_prior_centring_would_lose_digits():
    loss = losses(np.float32, 10.0, 1e-3, shape=(4, 250, 6, 5)).reshape(1000, 30)
    exact = np.cov(loss.astype(np.float64).T, ddof=0)
    mean = loss.mean(axis=0)
    naive = loss.T @ loss / 1000 - np.outer(mean, mean)
    deviation = np.sqrt(np.diag(exact))
    assert (np.abs(naive - exact) / deviation / deviation[:, None]).max() > 1


@pytest.mark.parametrize("correlate", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_masked_or_constant_losses_have_zero_influence(correlate, value):
    loss = losses(np.float32)
    loss[:, :, 1, 2] = value
    got = token_bif(loss, correlate=correlate)
    assert not got.sel(sample=1, token=2).values.any()
    assert not got.sel(sample_j=1, token_j=2).values.any()
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    "bad", [{"loss": losses()[0, 0]}, {"loss": np.ones((2, 3, 4), int)}, {"loss": losses(), "chunk_size": 0}]
)
def test_bad_input_is_refused_before_the_first_block(bad):
    with pytest.raises(InputError, match=r"got .*; expected "):
        token_bif_blocks(**bad)


def test_losses_that_are_not_finite_are_refused():
    loss = losses()
    loss[0, 3, 2, 1] = np.inf
    with pytest.raises(InputError, match="not finite"), np.errstate(invalid="ignore"):
        token_bif(loss)


def numpy_statement_of_devinterp(loss, correlate):
    """devinterp 2's convention: + covariance or + correlation, chains stacked, ddof 1, [i, j, token of i, of j]."""
    chains, draws, samples, tokens = loss.shape
    flat = loss.astype(np.float64).reshape(chains * draws, samples * tokens).T
    matrix = np.corrcoef(flat) if correlate else np.cov(flat)
    return matrix.reshape(samples, tokens, samples, tokens).transpose(0, 2, 1, 3)


def ours_as_devinterp(loss, correlate):
    """Sign turned, pooled over chains, ddof 1, axes in their order."""
    draws = loss.shape[0] * loss.shape[1]
    ours = -token_bif(loss, centering=Centering.pooled, correlate=correlate).values.transpose(0, 2, 1, 3)
    return ours if correlate else ours * (draws / (draws - 1))


TRACE = losses(np.float32, shape=(2, 20, 4, 7))


@pytest.mark.parametrize("correlate", [False, True])
def test_a_shared_trace_gives_the_numbers_of_devinterp_convention(correlate):
    np.testing.assert_allclose(
        ours_as_devinterp(TRACE, correlate), numpy_statement_of_devinterp(TRACE, correlate), atol=1e-6
    )


@pytest.mark.parametrize("correlate", [False, True])
@pytest.mark.parametrize("method", ["token", "sequence"])
def test_a_shared_trace_gives_the_numbers_of_devinterp(correlate, method):
    devinterp = pytest.importorskip("devinterp.slt.bif")
    import xarray as xr

    tree = xr.DataTree(
        xr.Dataset(
            {
                "loss_seen": (("chain", "draw", "batch", "token_pos"), TRACE),
                "input_ids_seen": (("batch", "token"), np.zeros((4, 8), dtype=np.int64)),
            }
        )
    )
    theirs = devinterp.compute_bif(
        tree, correlation_method=method, compute_covariance=not correlate, batch_size=3, device="cpu"
    )["influences"].values
    if method == "token":
        # Their two blocks round the same product differently from our single one.
        np.testing.assert_allclose(ours_as_devinterp(TRACE, correlate), theirs, atol=1e-6, rtol=1e-6)
    else:
        sequences = TRACE.mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(ours_as_devinterp(sequences, correlate)[..., 0, 0], theirs, atol=1e-6, rtol=1e-6)
