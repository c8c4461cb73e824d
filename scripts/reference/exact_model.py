"""Turns a loaded transformers model of the Llama kind into one that computes in float64 throughout.

Transformers computes norms and rotations in float32 whatever the weights' type is. Only the angles of a rotation, position
times frequency, stay rounded to float32: models were trained with them, and every program computes them so.
"""

from types import MethodType

import torch


def norm(self, hidden_states):
    """RMS norm in the type of what it is given."""
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))


def rotation(self, x, position_ids):
    """Cosines and sines in float64 of angles in float32."""
    angles = (position_ids[:, :, None].float() * self.inv_freq.float()).double()
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling


def exact(model):
    """The same model, in float64 from its float32 weights on."""
    model = model.double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(norm, module)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            assert module.rope_type == "default"
            module.forward = MethodType(rotation, module)
    return model
