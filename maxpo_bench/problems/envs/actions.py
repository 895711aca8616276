"""How the outputs of a network become the actions of a gymnasium space, whatever the space's shape."""

import gymnasium
import numpy as np

from maxpo_bench.errors import InputError


class Actions:
    """One categorical (Discrete), a product of them (MultiDiscrete, MultiBinary) or of normals (Box), flattened.

    size: outputs of the network. heads: sizes of the categoricals, None for normals. width: shape of an action as it is
    drawn: () one int64, (H,) int64 of H categoricals, (A,) float32.
    """

    def __init__(self, space, where=""):
        """where: what a message begins with. InputError when the space is none of these."""
        spaces, self.space, self.heads = gymnasium.spaces, space, None
        self.single = isinstance(space, spaces.Discrete)
        if self.single:
            self.heads, self.start = (int(space.n),), int(space.start)
        elif isinstance(space, spaces.MultiDiscrete):
            self.heads, self.start = tuple(space.nvec.ravel().tolist()), space.start
        elif isinstance(space, spaces.MultiBinary):
            self.heads, self.start = (2,) * int(np.prod(space.shape)), np.zeros(space.shape, space.dtype)
        elif not isinstance(space, spaces.Box):
            kind = type(space).__name__
            raise InputError(
                f"{where}env.id: action space {kind} is not supported; Discrete, MultiDiscrete, MultiBinary and Box are. "
                "Add a wrapper that makes one of these of it under env.wrappers"
            )
        self.size = sum(self.heads) if self.heads else int(np.prod(space.shape))
        if self.size == 0:
            raise InputError(f"{where}env.id: action space {space} has nothing to choose")
        self.width = () if self.single else (len(self.heads),) if self.heads else (self.size,)
        self.dtype = np.int64 if self.heads else np.float32

    def decode(self, actions):
        """Actions [B, *width] as a vector environment of B rows wants them."""
        if self.single:
            return actions + self.start if self.start else actions
        actions = actions.reshape(-1, *self.space.shape)
        if self.heads:
            return (actions + self.start).astype(self.space.dtype)
        return np.clip(actions, self.space.low, self.space.high).astype(self.space.dtype)
