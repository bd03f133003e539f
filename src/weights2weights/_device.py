"""The device to compute on."""

import torch

from .errors import InputError


def usable_device(
    device: str | torch.device = "auto", dtype: torch.dtype = torch.float32
) -> torch.device:
    """Return a device, or the best there is for "auto", once it is known to hold a dtype.

    Raises:
        InputError: it cannot be used on this machine.
    """
    if device == "auto":
        best = torch.accelerator.current_accelerator()
        device = best if best and torch.accelerator.is_available() else "cpu"
    try:
        return torch.empty(0, device=device, dtype=dtype).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used here ({reason}); give another, such as cpu"
        ) from error
