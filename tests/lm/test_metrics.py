import torch

from stagewise.lm import induction, metrics


def test_metrics_over_batches_equal_the_functions_over_all():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, (6, 16), generator=generator)
    attention = torch.rand(2, 6, 3, 16, 16, generator=generator).tril()
    losses = torch.rand(6, 15, generator=generator)
    prefix, previous = metrics.PrefixMatching(), metrics.PreviousToken()
    icl, gap = metrics.ICLScore(), metrics.LossGap(4)
    for part in (slice(0, 1), slice(1, 6)):
        prefix.update(attention[:, part], ids[part])
        previous.update(attention[:, part])
        icl.update(losses[part])
        gap.update(losses[part])
    torch.testing.assert_close(prefix.compute(), induction.prefix_matching(attention, ids))
    torch.testing.assert_close(previous.compute(), induction.previous_token(attention))
    torch.testing.assert_close(icl.compute(), induction.icl_score(losses))
    torch.testing.assert_close(gap.compute(), induction.loss_gap(losses, 4))
    prefix.reset()
    assert prefix.count == 0
