"""Compare two calculators on a file of structures: what differs, what got worse, what is unsound?

A and B are each a .safetensors file, the folder of a run or of a specialist that learned, a
pretrained potential (7net-0, or a file of SevenNet, NequIP or MACE: .pth, .nequip.zip, .ckpt,
.model; these may be pickles, so name files that you trust), or emt, lj or morse of ASE. A is the
one that is known, such as a foundation model, and B the one that is to replace it. Any two
calculators of ASE are compared in Python, by egnn_prune.audit.audit.

STRUCTURES is any file that ASE reads. Where it has labels (energy, forces, stress), each one's
errors are compared; without, how far B is from A. Either way the audit tries symmetries, whether
forces are the slope of the energy and where either jumps, conservation of energy in a short
simulation, speed over sizes, and error bars where they are stated; and it says on which elements,
surroundings, strains and structures B is worse. A difference counts where its 95 % interval (paired
bootstrap over structures) leaves out zero; else it is not decided.

DIR gets audit.html (one page that opens offline), audit.json with all numbers, and the figures.

    egnn-prune audit runs/ethanol/dense.safetensors runs/ethanol ethanol.xyz --out audit
"""

from __future__ import annotations

import argparse

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("a", metavar="A", help="the calculator that is known")
    parser.add_argument("b", metavar="B", help="the one that is compared with it")
    parser.add_argument("structures", metavar="STRUCTURES", help="file in any format of ASE")
    parser.add_argument("--out", metavar="DIR", default="audit", help="folder (audit)")
    parser.add_argument("--limit", type=int, default=200, help="structures, at most (200)")
    parser.add_argument(
        "--md-steps",
        type=int,
        default=500,
        help="steps of 0.5 fs, at least 40, or 0 for no simulation (500)",
    )
    parser.add_argument(
        "--sizes",
        metavar="N,N",
        help="numbers of atoms at which both are timed, 0 for none (1 and 8 times the first's)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.ase.predict_file import checked_folder
    from egnn_prune.ase.structures import read_structures
    from egnn_prune.audit import audit, calculator_of
    from egnn_prune.audit.auditing import check_options
    from egnn_prune.cli.arguments import with_options
    from egnn_prune.errors import ConfigError

    a, folder = arguments, checked_folder(arguments.out)
    sizes = None if a.sizes is None else numbers(a.sizes)
    structures = read_structures(a.structures)
    try:
        check_options(a.limit, a.md_steps, a.seed)  # calculators take seconds to load
        found = audit(
            calculator_of(a.a, a.device),
            calculator_of(a.b, a.device),
            structures,
            names=(shown(a.a), shown(a.b)),
            limit=a.limit,
            md_steps=a.md_steps,
            sizes=sizes,
            seed=a.seed,
        )
    except ConfigError as error:
        raise ConfigError(with_options(str(error), parser().options())) from error
    page = found.write(folder)
    print(f"A: {shown(a.a)}\nB: {shown(a.b)}")
    print("\n".join(f"- {sentence}" for sentence in found.findings))
    print(f"Page: {page}")


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them; none of a 0 alone.

    Raises:
        ConfigError: they are something else.
    """
    from egnn_prune.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise ConfigError(f"--sizes takes whole numbers such as 30,240, not {text!r}")
    return [] if parts == ["0"] else [int(part) for part in parts]


def shown(name: str) -> str:
    """A name from a stranger, for a terminal and a page: its end, without control characters."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= 80 else f"...{plain[-77:]}"


main = Tool(parser, work)
