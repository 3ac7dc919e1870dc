"""Choice of the shell and the spherical-harmonic order of single-shell models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bids_tractography.core.fodf import n_coefficients
from bids_tractography.core.gradients import Gradients, Shell
from bids_tractography.errors import GradientError

_MAX_AUTO_ORDER = 8


def choose_shell(
    shells: tuple[Shell, ...], shell_s_mm2: float | Literal["outermost"] = "outermost"
) -> Shell:
    """Return the shell at a b-value, or the outermost shell with enough directions.

    There are enough directions if they determine order 4. If that is not the case for any shell,
    the shell with the most directions is returned.

    Parameters
    ----------
    gradients : Gradients
        Shells to choose from.
    shell_s_mm2 : float or "outermost"
        b-value of the shell.

    Raises
    ------
    GradientError
        If no shell is near the b-value.
    """
    if shell_s_mm2 != "outermost":
        nearest = min(shells, key=lambda shell: abs(shell.b_s_mm2 - shell_s_mm2))
        if abs(nearest.b_s_mm2 - shell_s_mm2) > 0.1 * shell_s_mm2:
            there = ", ".join(f"{shell.b_s_mm2:.0f}" for shell in shells)
            raise GradientError(
                f"model.shell_s_mm2 is {shell_s_mm2:g}, but the shells are at {there} s/mm²."
            )
        return nearest
    suitable = [shell for shell in shells if shell.n_directions >= n_coefficients(4)]
    return suitable[-1] if suitable else max(shells, key=lambda shell: shell.n_directions)


def order_as_given(config: Any, gradients: Gradients, files: Mapping[str, Path]) -> int:
    """Return the configured order, see `ModelKind.sh_order`."""
    return int(config.sh_order)


def order_of_shell(config: Any, gradients: Gradients, files: Mapping[str, Path]) -> int:
    """Return the order of a single-shell model, see `ModelKind.sh_order`."""
    shell = choose_shell(gradients.shells, config.shell_s_mm2)
    return choose_order(shell.n_directions, config.sh_order)


def choose_order(n_directions: int, sh_order: int | Literal["auto"] = "auto") -> int:
    """Return the configured order, or the highest even order that the directions determine.

    Raises
    ------
    GradientError
        If the directions do not determine order 2.
    """
    if sh_order != "auto":
        return sh_order
    orders = [
        order for order in range(2, _MAX_AUTO_ORDER + 1, 2) if n_coefficients(order) <= n_directions
    ]
    if not orders:
        raise GradientError(
            f"this model requires at least {n_coefficients(2)} directions in a shell; the best has "
            f"{n_directions}.",
            "Use model.kind=tensor.",
        )
    return orders[-1]
