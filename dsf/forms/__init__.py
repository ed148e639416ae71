"""Forms: the ways to compute a system. `FORMS` is the visible table."""

from .base import Form as Form
from .base import Sizes as Sizes
from .mixing import mixing_matrix as mixing_matrix
from .run import run as run
from .selection import Choice as Choice
from .selection import explain as explain
from .selection import forms as forms
from .selection import select as select
from .table import FORMS as FORMS
