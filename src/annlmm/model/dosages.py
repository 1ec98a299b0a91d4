"""What may be a dosage, and what is rather the code of a missing call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Sums of probabilities, made in single precision, leave [0, 2] by less than this.
ROUNDING = 1e-5
# Copies that an octoploid has: what is larger counts none.
MOST_COPIES = 8


def not_dosages(values: NDArray[Any], min_maf: float) -> str | None:
    """Why values (NaN: missing) cannot be analysed as dosages; None if they can.

    Dosages lie in [0, 2]. With ``min_maf=0`` other values may be variants that are standardised or centred already, or dosages of
    polyploids. They are not where everything outside [0, 2] is a whole number, and one of these is negative or beyond 8: so look
    −9, −1, −127, 9 and 255, the codes of missing calls.
    """
    outside = values[(values < -ROUNDING) | (values > 2 + ROUNDING)]
    if not outside.size:
        return None
    whole = bool((outside == np.rint(outside)).all())
    if min_maf == 0 and not (whole and ((outside < 0) | (outside > MOST_COPIES)).any()):
        return None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    text = f"the values are not dosages (they range from {low:.4g} to {high:.4g}, not 0 to 2); "
    if not whole:
        return f"{text}missing calls must be NaN or named (missing_call=-9, say); variants that are standardised already need min_maf=0"
    code = float(outside[np.argmax(np.abs(outside))])
    shifted = "; where -1, 0 and 1 are genotypes, add 1" if (low, high) == (-1.0, 1.0) else ""
    return (
        f"{text}missing calls must be NaN or named: missing_call={code:g}, if that is what {code:g} stands for{shifted}"
    )
