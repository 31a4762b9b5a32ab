import pytest
import torch

from autoembed_kernels.checks import as_indices, check_dims, check_shape


def test_what_fits_passes() -> None:
    check_shape("rows", torch.zeros(2, 3), (2, 3), "two rows")
    check_dims("rows", torch.zeros(2, 3), "R, D")
    check_dims("rows", torch.zeros(2), "N")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_whole_numbers_become_int64_unless_they_may_stay(dtype: torch.dtype) -> None:
    given = torch.tensor([3, 0, 7], dtype=dtype)
    assert as_indices("rows", given).dtype == torch.int64
    assert as_indices("rows", given).tolist() == [3, 0, 7]
    kept = as_indices("rows", given, torch.int32)
    assert kept.dtype == (torch.int32 if dtype == torch.int32 else torch.int64)
    assert as_indices("rows", given, dtype) is given


def test_errors_say_what_was_found_and_expected() -> None:
    with pytest.raises(ValueError, match=r"steps has shape \(2,\), expected \(5,\): one for each row"):
        check_shape("steps", torch.zeros(2), (5,), "one for each row")
    with pytest.raises(ValueError, match=r"weight has shape \(2,\), expected \(R, D\)"):
        check_dims("weight", torch.zeros(2), "R, D")
    with pytest.raises(ValueError, match=r"rows has shape \(2, 2\) .* expected \(N,\)"):
        as_indices("rows", torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_other_numbers_are_no_indices(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="dtype"):
        as_indices("rows", torch.zeros(3, dtype=dtype))
