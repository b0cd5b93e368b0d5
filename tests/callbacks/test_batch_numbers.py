import pytest

from stagewise.callbacks.batch_numbers import BatchNumbers


@pytest.mark.parametrize(("per_step", "per_epoch"), [(1, 5), (3, 7), (4, 8), (5, 3)])
def test_steps_and_batches_are_those_of_a_plain_loop(per_step, per_epoch):
    numbers = BatchNumbers(per_step, per_epoch)
    step, batch = 0, 0
    starts = {0: 0}
    for _ in range(4):
        for place in range(per_epoch):
            assert numbers.step(batch) == step
            batch += 1
            if (place + 1) % per_step == 0 or place + 1 == per_epoch:
                step += 1
                starts[step] = batch
        assert step % numbers.steps_per_epoch == 0
    assert {start: numbers.batches(start) for start in starts} == starts
