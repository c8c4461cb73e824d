//! What the workloads of one length share.

use crate::budget::Floor;
use crate::error::Result;
use crate::eval::Case;
use crate::eval::speed::Decoding;
use crate::method::Ranking;
use crate::model::Model;
use crate::model::attention::NoProbe;
use crate::model::decoder::{Decoder, PREFILL_RUN};
use crate::select::{HeadSplit, SnapKv};

/// A prompt, and what was prepared for those that go on from it.
pub struct Stage<'a> {
    /// The model that runs.
    pub model: &'a Model,
    /// The prompt.
    pub case: Case,
    /// SnapKV with its defaults.
    pub ranking: Ranking,
    /// Sinks and window.
    pub floor: Floor,
    /// The prefilled prompt, where a workload decodes.
    pub decoding: Option<Decoding<'a>>,
}

impl<'a> Stage<'a> {
    /// Prepares a prompt; `steps` are prepared where there are any.
    ///
    /// Errors: those of prefilling.
    pub(super) fn prepare(model: &'a Model, case: Case, steps: Option<usize>) -> Result<Self> {
        let ranking = Ranking {
            name: "snapkv".to_owned(),
            scorer: Box::new(SnapKv::default()),
            split: HeadSplit::PerHead,
        };
        let floor = Floor::of(Floor::SINKS, Floor::WINDOW);
        let decoder = &model.decoder;
        let decoding = match steps {
            Some(steps) => Some(Decoding::prepare(
                decoder, &case.ids, steps, &ranking, floor,
            )?),
            None => {
                warm_up(decoder, &case.ids)?;
                None
            }
        };
        Ok(Self {
            model,
            case,
            ranking,
            floor,
            decoding,
        })
    }
}

/// One run of a prompt, so that the first repeat does not find everything cold.
fn warm_up(decoder: &Decoder, ids: &[u32]) -> Result<()> {
    let ids = &ids[..ids.len().min(PREFILL_RUN)];
    let mut cache = decoder.new_cache(ids.len())?;
    decoder.prefill(ids, &mut cache, PREFILL_RUN, &mut NoProbe)?;
    Ok(())
}
