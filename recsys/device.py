"""Where inference runs."""

from recsys.errors import InputError

_NAMES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> str:
    """``cpu`` or ``cuda`` for a config's ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: on another name, and on ``cuda`` where PyTorch has no CUDA device.
    """
    import torch

    available = torch.cuda.is_available()
    if name not in _NAMES:
        raise InputError(f"device to be one of {', '.join(_NAMES)}", repr(name), "set device=auto")
    if name == "cuda" and not available:
        raise InputError(
            "a CUDA device for device=cuda",
            "none that PyTorch can use",
            "set device=cpu, or install a driver and a CUDA build of PyTorch",
        )
    return "cuda" if available and name != "cpu" else "cpu"
