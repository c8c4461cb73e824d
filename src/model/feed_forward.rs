//! The gated feed-forward layer: down(activation(gate(x)) * up(x)).

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;

use super::config::{Activation, ModelConfig};
use super::weights::Weights;
use crate::compute::exponentials::{gelu_tanh_product, silu_product};
use crate::compute::linear::Linear;
use crate::error::Result;

pub(super) struct FeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn load(weights: &mut Weights<'_>, c: &ModelConfig, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let [gate, up] = if c.family.fused {
            let both = weights.linear(&name("ffn_up"), 2 * inner, hidden)?;
            both.split([inner, inner])?
        } else {
            let gate = weights.linear(&name("ffn_gate"), inner, hidden)?;
            [gate, weights.linear(&name("ffn_up"), inner, hidden)?]
        };
        Ok(Self {
            gate,
            up,
            down: weights.linear(&name("ffn_down"), hidden, inner)?,
            activation: c.family.activation,
        })
    }

    /// Bytes of its weights.
    pub(super) fn bytes(&self) -> usize {
        self.gate.bytes() + self.up.bytes() + self.down.bytes()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        if gate.device().is_cpu() && gate.dtype() == DType::F32 {
            gate.inplace_op2(&up, &GatedProduct(self.activation))?;
            return self.down.forward(&gate);
        }
        let gate = match self.activation {
            Activation::Silu => candle_nn::ops::silu(&gate)?,
            Activation::GeluTanh => gate.gelu()?,
        };
        self.down.forward(&(gate * up)?)
    }
}

/// `gate <- activation(gate) * up` in one pass over float32 memory.
struct GatedProduct(Activation);

impl InplaceOp2 for GatedProduct {
    fn name(&self) -> &'static str {
        "gated-product"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> candle_core::Result<()> {
        const CHUNK: usize = 1 << 14;
        let (CpuStorage::F32(gate), CpuStorage::F32(up)) = (gate, up) else {
            candle_core::bail!("gated-product works on float32 tensors");
        };
        let (Some((g0, g1)), Some((u0, u1))) = (
            gate_layout.contiguous_offsets(),
            up_layout.contiguous_offsets(),
        ) else {
            candle_core::bail!("gated-product works on contiguous tensors");
        };
        let product = match self.0 {
            Activation::Silu => silu_product,
            Activation::GeluTanh => gelu_tanh_product,
        };
        gate[g0..g1]
            .par_chunks_mut(CHUNK)
            .zip(up[u0..u1].par_chunks(CHUNK))
            .for_each(|(g, u)| product(g, u));
        Ok(())
    }
}
