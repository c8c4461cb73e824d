//! A profile of what was captured, made with the code that measures a prefill.

use super::manifest::CaptureManifest;
use super::tensors::CapturedLayers;
use crate::error::Result;
use crate::model::CapturedLayer;
use crate::profile::probe::Profiler;
use crate::profile::rows::{LayerSpan, PromptLabel, all_tables, append_tables};
use crate::profile::run::ProfileRun;
use crate::run::ModelRecord;
use crate::table::Table;

impl ProfileRun {
    /// Measures a prompt of a capture, which is number `index` of the run, and writes its rows.
    ///
    /// Errors: whatever reading, measuring or writing returns; nothing is kept of the prompt then.
    pub fn measure_captured(
        &self,
        index: usize,
        capture: &mut dyn CapturedLayers,
        prompt: usize,
        on_layer: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let options = &self.record().settings.measures;
        let label = capture.manifest().label(prompt, index)?;
        let facts = capture.manifest().model.layers.clone();
        let windowed = facts.iter().any(|layer| layer.window.is_some());
        let mut tables: Vec<Table> = Vec::new();
        for (number, facts) in facts.iter().enumerate() {
            let tensors = capture.layer(prompt, number)?;
            let layer = CapturedLayer::new(number, facts.window, facts.scale, &tensors)?;
            drop(tensors);
            let mut ignored = |_| ();
            let mut profiler = Profiler::new(options, &mut ignored);
            layer.show(&mut profiler)?;
            let span = LayerSpan {
                first: number,
                layers: &profiler.finish(),
                windowed,
            };
            append_tables(&mut tables, all_tables(&label, span, options))?;
            on_layer(label.tokens);
        }
        self.write(index, &tables)
    }
}

impl CaptureManifest {
    /// What tables call a prompt that is number `index` of a run.
    fn label(&self, prompt: usize, index: usize) -> Result<PromptLabel> {
        let captured = self.prompt(prompt)?;
        Ok(PromptLabel {
            index,
            id: captured.id.clone(),
            tokens: captured.ids.len(),
        })
    }

    /// The model as the record of a run has it.
    pub fn model_record(&self) -> ModelRecord {
        let model = &self.model;
        let windows: Vec<Option<usize>> = model.layers.iter().map(|layer| layer.window).collect();
        let windowed = windows.iter().any(Option::is_some);
        ModelRecord {
            name: model.name.clone(),
            source: model.source.clone(),
            sha256: model.sha256.clone(),
            architecture: model.architecture.clone(),
            num_layers: model.layers.len(),
            num_heads: model.num_heads,
            num_kv_heads: model.num_kv_heads,
            head_dim: model.head_dim,
            windows: if windowed { windows } else { Vec::new() },
            device: format!("{}, captured by {}", self.device, self.made_by),
            dtype: self.dtype.clone(),
        }
    }
}
