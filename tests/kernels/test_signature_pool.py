import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.signature_pool import (
    MAX_KEYS,
    key_masks,
    read_signatures,
    reference,
    signature_slots,
    stored_signatures,
)

WORDS = st.integers(0, 2**64 - 1)


def signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


@given(WORDS, st.integers(1, MAX_KEYS), st.integers(1, 20), st.integers(1, 16), st.integers(0, 2**40))
@settings(deadline=None, max_examples=60)
def test_slots_equal_the_reference_and_blocks_stay_in_the_pool(
    word: int, keys: int, blocks: int, block: int, more: int
) -> None:
    slots = signature_slots(torch.tensor([signed(word)]), key_masks(blocks)[keys - 1], block, block + more)
    assert slots.tolist() == [reference(word, keys, blocks, block, block + more)]
    assert int(slots.min()) >= 0 and int(slots.max()) + block <= block + more


@given(st.lists(WORDS, max_size=9), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_stored_signatures_read_back_from_any_byte(words: list[int], before: int) -> None:
    signatures = torch.tensor([signed(word) for word in words], dtype=torch.int64)
    stored = stored_signatures(signatures)
    assert stored.numpy().tobytes() == b"".join(word.to_bytes(8, "little") for word in words)
    shifted = torch.cat([torch.zeros(before, dtype=torch.uint8), stored])
    assert torch.equal(read_signatures(shifted, before + 8 * torch.arange(len(words))), signatures)


def test_a_block_is_placed_by_as_many_keys_as_asked_for_and_more_keys_hold_fewer() -> None:
    masks = key_masks(32)
    for keys in range(1, MAX_KEYS + 1):
        for mask in masks[keys - 1].tolist():
            assert (mask % 2**64).bit_count() == 4 * keys
    assert torch.equal(masks[:-1] & masks[1:], masks[:-1])
    assert len(masks[0].unique()) > 8  # different blocks ask different keys


def test_signatures_of_one_call_may_be_placed_by_different_numbers_of_keys() -> None:
    words = [2**63 + 12345, 77, 2**40 + 3]
    slots = signature_slots(torch.tensor([signed(w) for w in words]), key_masks(6)[[0, 3, 7]], 2, 10_007)
    for word, keys, found in zip(words, (1, 4, 8), slots.tolist(), strict=True):
        assert found == reference(word, keys, 6, 2, 10_007)


def test_blocks_are_shared_where_the_chosen_keys_agree_and_only_there() -> None:
    blocks, slots = 64, 2**40
    word = 0x0123456789ABCDEF
    other = word ^ 0xF << 20  # one key differs
    first = signature_slots(torch.tensor([word]), key_masks(blocks)[3], 1, slots)
    second = signature_slots(torch.tensor([other]), key_masks(blocks)[3], 1, slots)
    asks = (key_masks(blocks)[3] >> 20 & 15 == 15).unsqueeze(0)
    assert 0 < int(asks.sum()) < blocks
    assert torch.equal(first != second, asks)


def test_the_pool_is_used_evenly_beyond_24_bits() -> None:
    signatures = torch.randint(-(2**62), 2**62, (20_000,), generator=torch.Generator().manual_seed(0))
    slots = signature_slots(signatures, key_masks(2)[7], 1, 2**40)
    assert int(slots.max()) > 2**39
    assert len(slots.unique()) > 0.999 * slots.numel()
    # 40 thousand in 40 places: five standard deviations of a place's count are 156
    counts = torch.bincount(signature_slots(signatures, key_masks(2)[7], 1, 40).flatten(), minlength=40)
    assert (counts - 1000).abs().max() < 156


def test_masks_that_do_not_fit_are_refused() -> None:
    signatures, masks = torch.arange(5), key_masks(3)[0]
    for wrong in (masks.expand(2, 3).clone(), masks.expand(1, 5, 3), masks[0]):
        with pytest.raises(ValueError, match=r"masks has shape .* expected \(blocks,\) or \(5, blocks\)"):
            signature_slots(signatures, wrong, 1, 10)
    with pytest.raises(ValueError, match="signatures has shape"):
        signature_slots(signatures.view(1, 5), masks, 1, 10)
    with pytest.raises(ValueError, match="no block of 11"):
        signature_slots(signatures, masks, 11, 10)
    every = signature_slots(signatures.int(), masks.expand(5, 3).clone(), 1, 10)
    assert torch.equal(every, signature_slots(signatures, masks, 1, 10))
