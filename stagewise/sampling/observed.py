"""The observed set, cut into the chunks that are evaluated at once."""

from stagewise.batches import Batch, num_samples, take


def chunks(batch: Batch, chunk_size: int | None) -> list[Batch]:
    """Parts of a batch of at most ``chunk_size`` samples, in order; the batch itself if None."""
    size = num_samples(batch)
    if chunk_size is None or chunk_size >= size:
        return [batch]
    return [take(batch, slice(start, start + chunk_size)) for start in range(0, size, chunk_size)]
