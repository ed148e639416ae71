r"""Sequence mixers as one recurrence.

A sequence mixer (softmax and linear attention, state space models, recurrent networks) is written
as a `System`

    h_i = Λ_i h_{i-1} + B_i u_i,        y_i = C_i h_i + D_i u_i,

computed by any of several forms that agree within their error bounds, and spoken about by claims
whose certificates can be checked again from their data.

Convention, the same everywhere:

    values, inputs u, outputs y      (B, T, H, V)
    keys and queries                 (B, T, H, K)
    scalar gates                     (B, T, H)
    diagonal gates                   (B, T, H, K)
    elementwise gates                (B, T, H, K, V)
    states h                         (B, H, K, V)

An axis of size 1 in B, T or H broadcasts, so a constant in time has T = 1.

Glossary:

    h  state                            B  batch axis
    Λ  transition                       T  time axis
    B  write (the input coupling)       H  heads axis
    C  read (the output coupling)       K  key axis
    D  feedthrough                      V  value axis
    Φ  token-mixing matrix, y = Φ u     R  writes per step
    Ψ(i, j)  transition product Λ_i Λ_{i-1} … Λ_{j+1}
    η  normaliser                       m  stabiliser of the normaliser
    g  log-decay, Λ = exp(g)            β  write strength
    cut i        the time between steps i - 1 and i; Φ[i:, :i] is its Hankel block
    σ_k(i)       Hankel singular values: those of that block
    W_c, W_o     reachability and observability Gramians of a cut
    order n_i    the size of the state at a cut

B is an axis in a shape and the write in an equation; the context tells them apart.

In `dsf.theory`, one attention layer selects tokens, X_i softmax(X_i W z_i):

    n  samples                          x  token (d,), X_i (T, d) those of a sample
    T  tokens of a sample               z  query (d,)
    W  attention weights (d, d)         γ  scores (n, T), label times head times token
    K, Q  factors (d, m), W = K Qᵀ      α  selection (n,), opt the tokens of the highest score
    s  softmax weights (n, T)           A_k  margins (x_iα - x_it)ᵀ W z_i, one a row

>>> import torch, dsf
>>> ones = torch.ones(1, 4, 1, 1)
>>> system = dsf.System(dsf.Identity(), dsf.OuterCoupling(ones), dsf.OuterCoupling(ones))
>>> outputs, state = dsf.run(system, ones)
>>> outputs.flatten()
tensor([1., 2., 3., 4.])
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dsf._lazy import lazy
from dsf._version import __version__ as __version__

if TYPE_CHECKING:
    from dsf.certificate import Budget as Budget
    from dsf.certificate import Claim as Claim
    from dsf.certificate import Level as Level
    from dsf.certificate import Status as Status
    from dsf.composition import adjoint as adjoint
    from dsf.composition import concatenate as concatenate
    from dsf.coupling import ChannelCoupling as ChannelCoupling
    from dsf.coupling import DenseCoupling as DenseCoupling
    from dsf.coupling import OuterCoupling as OuterCoupling
    from dsf.coupling import ScaledCoupling as ScaledCoupling
    from dsf.diagnosis import diagnose as diagnose
    from dsf.errors import InvalidInput as InvalidInput
    from dsf.errors import Refusal as Refusal
    from dsf.errors import Refused as Refused
    from dsf.forms import explain as explain
    from dsf.forms import mixing_matrix as mixing_matrix
    from dsf.forms import run as run
    from dsf.forms import select as select
    from dsf.forms.bounds import error_bound as error_bound
    from dsf.packing import mask_padding as mask_padding
    from dsf.packing import pack as pack
    from dsf.packing import unpack as unpack
    from dsf.state import State as State
    from dsf.structure import DPLR as DPLR
    from dsf.structure import Block as Block
    from dsf.structure import Dense as Dense
    from dsf.structure import Diagonal as Diagonal
    from dsf.structure import Discretised as Discretised
    from dsf.structure import Elementwise as Elementwise
    from dsf.structure import Identity as Identity
    from dsf.structure import Scalar as Scalar
    from dsf.structure import compose as compose
    from dsf.system import Normaliser as Normaliser
    from dsf.system import System as System

# Imported when first used, so that `import dsf` and `dsf --help` stay quick; torch comes with them.
_LAZY: dict[str, str] = {
    "System": "dsf.system",
    "Normaliser": "dsf.system",
    "State": "dsf.state",
    "OuterCoupling": "dsf.coupling",
    "ChannelCoupling": "dsf.coupling",
    "DenseCoupling": "dsf.coupling",
    "ScaledCoupling": "dsf.coupling",
    "Identity": "dsf.structure",
    "Scalar": "dsf.structure",
    "Diagonal": "dsf.structure",
    "Elementwise": "dsf.structure",
    "Discretised": "dsf.structure",
    "Block": "dsf.structure",
    "DPLR": "dsf.structure",
    "Dense": "dsf.structure",
    "compose": "dsf.structure",
    "run": "dsf.forms",
    "select": "dsf.forms",
    "explain": "dsf.forms",
    "mixing_matrix": "dsf.forms",
    "error_bound": "dsf.forms.bounds",
    "diagnose": "dsf.diagnosis",
    "adjoint": "dsf.composition",
    "concatenate": "dsf.composition",
    "pack": "dsf.packing",
    "unpack": "dsf.packing",
    "mask_padding": "dsf.packing",
    "InvalidInput": "dsf.errors",
    "Refusal": "dsf.errors",
    "Refused": "dsf.errors",
    "Claim": "dsf.certificate",
    "Level": "dsf.certificate",
    "Status": "dsf.certificate",
    "Budget": "dsf.certificate",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


__getattr__, __dir__ = lazy(__name__, _LAZY)
