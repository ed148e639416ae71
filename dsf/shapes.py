"""Array annotations: jaxtyping where it is installed, plain names where it is not.

The annotations document shapes; tests turn them into checks with jaxtyping's import hook and
beartype. Nothing is checked, and nothing has to be installed, in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Inexact
    from typing import Annotated as Real
else:
    try:
        from jaxtyping import Bool, Float, Inexact, Real
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, _: Any) -> Any:
                return Any

        Bool = Float = Inexact = Real = _Unchecked

__all__ = ["Bool", "Float", "Inexact", "Real"]
