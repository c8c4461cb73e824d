//! The gated feed-forward layer: down(silu(gate(x)) * up(x)).

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;

use super::config::ModelConfig;
use super::weights::Weights;
use crate::compute::exponentials::silu_product;
use crate::compute::linear::Linear;
use crate::error::Result;

pub(super) struct FeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    pub(super) fn load(weights: &mut Weights<'_>, c: &ModelConfig, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        Ok(Self {
            gate: weights.linear(&name("ffn_gate"), inner, hidden)?,
            up: weights.linear(&name("ffn_up"), inner, hidden)?,
            down: weights.linear(&name("ffn_down"), hidden, inner)?,
        })
    }

    /// Bytes of its weights.
    pub(super) fn bytes(&self) -> usize {
        self.gate.bytes() + self.up.bytes() + self.down.bytes()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        if gate.device().is_cpu() && gate.dtype() == DType::F32 {
            gate.inplace_op2(&up, &SiluProduct)?;
            return self.down.forward(&gate);
        }
        self.down.forward(&(candle_nn::ops::silu(&gate)? * up)?)
    }
}

/// `gate <- silu(gate) * up` in one pass over float32 memory.
struct SiluProduct;

impl InplaceOp2 for SiluProduct {
    fn name(&self) -> &'static str {
        "silu-product"
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
            candle_core::bail!("silu-product works on float32 tensors");
        };
        let (Some((g0, g1)), Some((u0, u1))) = (
            gate_layout.contiguous_offsets(),
            up_layout.contiguous_offsets(),
        ) else {
            candle_core::bail!("silu-product works on contiguous tensors");
        };
        gate[g0..g1]
            .par_chunks_mut(CHUNK)
            .zip(up[u0..u1].par_chunks(CHUNK))
            .for_each(|(g, u)| silu_product(g, u));
        Ok(())
    }
}
