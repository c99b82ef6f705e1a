"""Which device a command runs on."""

from __future__ import annotations

from ctrlgenaug.errors import UserError


def pick_device(name: str) -> str:
    """``auto`` becomes the first GPU or the CPU; a `UserError` for a GPU that is not there."""
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{name!r} is not a device", "Write cpu, cuda:0 or auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name} does not exist here", "Give --device cpu or auto")
    return name
