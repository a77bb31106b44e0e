"""Pretrained potentials by name, or from a file of the package that trained them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.lazy_imports import naming_extras

#: Names of trained potentials, and what reads them.
PRETRAINED = ("7net-0", "7net-0_22may2024", "7net-l3i5", "7net-mf-0")


def load(name_or_path: str | Path, *, modal: str | None = None) -> AdoptedPotential:
    """Somebody's trained potential, translated into parts that can be pruned.

    The translation is tried on a small structure: a layout that is not known is refused, never
    misread. A checkpoint of another package is a pickle, which can run code; it is read by the
    package that wrote it, and only because you name it here: name files that you trust. MACE has no
    reader of its own but torch's; its files are refused unless the environment says
    ``EGNN_PRUNE_TRUST_PICKLES=1``.

    Args:
        name_or_path: ``"7net-0"`` (SevenNet-0 of July 2024), ``"7net-0_22may2024"``,
            ``"7net-l3i5"`` or ``"7net-mf-0"``, which come with the package ``sevenn``; a file that
            SevenNet (``.pth``), NequIP (``.nequip.zip``, ``.ckpt``) or MACE (``.model``) wrote.
        modal: the level of theory, of a potential that has several, such as ``"PBE"`` (a head of
            MACE).

    Returns:
        The potential, in evaluation mode, on the CPU, in the precision of the file.

    Raises:
        InputError: there is no such potential or file, or its layout is not known.
        MissingExtraError: the package that wrote it is not installed.
        ConfigError: ``modal`` is missing or wrong, or nobody said that a file of MACE is trusted.

    Example:
        >>> model = load("7net-0")
        >>> model = drop_species(drop_odd_paths(model), ["H", "O"])
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name.lower().replace("sevennet", "7net") in PRETRAINED:
        return _sevennet(name.lower(), modal)
    if not path.is_file():
        near = get_close_matches(name.lower(), PRETRAINED, 1, 0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"there is no potential and no file {name!r}{guess} (known by name: "
            f"{', '.join(PRETRAINED)})"
        )
    for suffix, read in READERS.items():
        if path.name.endswith(suffix):
            return read(path, modal)
    if path.suffix == ".safetensors":
        raise InputError(f"{path} is a file of egnn_prune; egnn_prune.load reads it")
    raise InputError(
        f"{path} ends in none of {', '.join(READERS)}, by which files of SevenNet, NequIP and MACE "
        "are known"
    )


def _sevennet(name: str | Path, modal: str | None) -> AdoptedPotential:
    import warnings

    from egnn_prune.adapters.sevennet import read_sevennet

    with naming_extras(f"{name} is read by"):
        import sevenn.util as util
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries: TorchScript, accelerators
        try:
            network, _ = util.model_from_checkpoint(str(name))
        except Exception as error:  # a pickle may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"sevenn cannot read {name}: {reason}") from error
        return read_sevennet(network.eval(), modal)


def _nequip(path: Path, modal: str | None) -> AdoptedPotential:
    from egnn_prune.adapters.nequip import read_nequip_file

    if modal is not None:
        raise ConfigError(f"{path} is NequIP's, which has one level of theory; leave modal= away")
    return read_nequip_file(path)


def _mace(path: Path, modal: str | None) -> AdoptedPotential:
    from egnn_prune.adapters.mace import read_mace

    return read_mace(path, modal)


READERS: dict[str, Callable[[Any, str | None], AdoptedPotential]] = {
    ".pth": _sevennet,
    ".nequip.zip": _nequip,
    ".ckpt": _nequip,
    ".model": _mace,
}
