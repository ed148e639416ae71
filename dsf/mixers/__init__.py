"""Mixers and architectures. `ARCHITECTURES` is the visible table."""

from .architecture import Architecture as Architecture
from .architecture import Draw as Draw
from .architecture import Sample as Sample
from .gated_deltanet import gated_deltanet as gated_deltanet
from .linear_attention import linear_attention as linear_attention
from .mlstm import mlstm as mlstm
from .protocol import Mixer as Mixer
from .protocol import Recurrence as Recurrence
from .retnet import retnet as retnet
from .s4d import s4d as s4d
from .s6 import s6 as s6
from .softmax_attention import SoftmaxAttention as SoftmaxAttention
from .table import ARCHITECTURES as ARCHITECTURES
