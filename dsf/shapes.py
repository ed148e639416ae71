"""Array annotations: jaxtyping where it is installed, plain names where it is not.

The annotations document shapes; tests turn them into checks with jaxtyping's import hook and
beartype. Nothing is checked, and nothing has to be installed, in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Annotated as Float
    from typing import Annotated as Inexact
else:
    try:
        from jaxtyping import Float, Inexact
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, _: Any) -> Any:
                return Any

        Float = Inexact = _Unchecked

__all__ = ["Float", "Inexact"]
