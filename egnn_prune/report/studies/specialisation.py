"""Table and figure of the study of specialised potentials."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.statistics import over_seeds, spread_text, values

ARM = ("system", "arm", "weights", "times")


def best_rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each trained arm and seed, the rate with the lowest validation error."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["part"] == "fits":
            key = (*(row[name] for name in ARM), row["seed"])
            if key not in best or row["val_force_rmse"] < best[key]["val_force_rmse"]:
                best[key] = row
    return list(best.values())


def specialisation_table(rows: list[dict[str, Any]]) -> str:
    """Test errors of the trained arms, mean and deviation over seeds."""
    fits = best_rates(rows)
    body = []
    for key in dict.fromkeys(tuple(row[name] for name in ARM) for row in fits):
        cell = dict(zip(ARM, key, strict=True))
        force, energy = (
            spread_text(over_seeds(fits, name, **cell))
            for name in ("force_rmse_mev_per_angstrom", "energy_mae_mev_per_atom")
        )
        rates = ", ".join(f"{rate:g}" for rate in values(fits, "rate", **cell))
        body.append([*map(str, key), rates, force, energy])
    return text_table([*ARM, "rate", "force RMSE meV/A", "energy MAE meV/atom"], body)


def specialisation_plot(rows: list[dict[str, Any]]) -> Figure:
    return Figure()
