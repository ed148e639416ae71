"""Figures of papers on token selection, redrawn with certificates; matplotlib is imported when one is drawn."""

from .heads import nonlinear_head as nonlinear_head
from .local import local_convergence as local_convergence
from .pictures import trajectories as trajectories
from .ranks import ranks as ranks
from .shares import shares as shares
