"""Instances of token selection, each drawn from one seed: what the theorems are checked on."""

from .data import TokenData as TokenData
from .graphs import NextTokenGraph as NextTokenGraph
from .graphs import next_token_graph as next_token_graph
from .heads import orthonormal as orthonormal
from .heads import relu_network as relu_network
from .pictures import picture as picture
from .sequences import causal as causal
from .sequences import sequence_to_sequence as sequence_to_sequence
from .sphere import equal_scores as equal_scores
from .sphere import high_dimensional as high_dimensional
from .sphere import planted_local as planted_local
from .sphere import prompt as prompt
from .sphere import random_selection as random_selection
from .sphere import self_attention as self_attention
from .sphere import sphere as sphere
